"""The twelve rows: what each needs measured, its target, and the judgement. Pure.

Targets are ratios between gateways measured in the same run, as speeds differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

KIB_PER_MIB = 1024
VLLM = "vllm-router"


class Unmeasured(Exception):
    """A figure that a judgement needs is missing; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians by case, gateway and metric; and for what could not be measured, the reason by name."""

    medians: Mapping[str, Mapping[str, Mapping[str, float]]]
    reasons: Mapping[str, str]

    def has(self, case: str, gateway: str) -> bool:
        return gateway in self.medians.get(case, {})

    def of(self, case: str, gateway: str, metric: str) -> float:
        """One figure. Raises Unmeasured."""
        if self.has(case, gateway):
            return self.medians[case][gateway][metric]
        reason = self.reasons.get(gateway) or self.reasons.get(case) or self.reasons.get(f"{case}/{gateway}")
        raise Unmeasured(f"{gateway}: {reason or 'not measured'}")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict. `is_met` is None for figures that are only reported or missing."""

    row: int
    what: str
    target: str
    measured: str
    ratio: float | None = None
    is_met: bool | None = None


Judge = Callable[[int, Figures], list[Check]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the gateways it needs by case, and how it is judged.

    `peers_in` are the cases that other gateways are put through as well.
    """

    number: int
    title: str
    needs: Mapping[str, tuple[str, ...]]
    judge: Judge
    peers_in: tuple[str, ...] = ()


def _by_ratio(row: int, what: str, figures: tuple[float, float], *, at_most: float, than: str) -> Check:
    """Ours over theirs, which must not be above `at_most`."""
    ours, theirs = figures
    ratio = ours / theirs if theirs else float("inf")
    return Check(
        row,
        what,
        f"<= {at_most:g} x {than}",
        f"{number(ours)} against {number(theirs)}",
        ratio,
        ratio <= at_most,
    )


def _absolute(row: int, what: str, value: float, *, at_most: float, unit: str) -> Check:
    return Check(row, what, f"<= {at_most:g} {unit}", f"{number(value)} {unit}", None, value <= at_most)


def _faults(row: int, figures: Figures, case: str, gateway: str = "proxy") -> list[Check]:
    """A line for answers that failed or streams that were lost, if there were any."""
    if not figures.has(case, gateway):
        return []
    metrics = figures.medians[case][gateway]
    count = metrics.get("errors", 0) + metrics.get("lost", 0)
    return [Check(row, f"failed or lost ({gateway})", "0", f"{count:.0f}", None, False)] if count else []


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.2g}"


def _cpu(figures: Figures, case: str, ours: str, theirs: str) -> tuple[float, float]:
    return figures.of(case, ours, "cpu_s_per_1000"), figures.of(case, theirs, "cpu_s_per_1000")


def _whole(row: int, figures: Figures) -> list[Check]:
    what = "CPU s per 1,000 whole answers"
    other, at_most = (VLLM, 1) if figures.has("whole", VLLM) else ("nginx", 6.9)
    first = _by_ratio(row, what, _cpu(figures, "whole", "proxy", other), at_most=at_most, than=other)
    ours, nginx = (figures.of("whole", name, "requests_per_s") for name in ("proxy", "nginx"))
    share = Check(
        row, "requests/s (reach)", "0.25 x nginx", f"{number(ours)} against {number(nginx)}", ours / nginx
    )
    return [first, share, *_faults(row, figures, "whole")]


def _framework(row: int, figures: Figures) -> list[Check]:
    ours, bare = (figures.of("whole", name, "requests_per_s") for name in ("proxy", "constant"))
    measured = f"{number(ours)} against {number(bare)}"
    check = Check(row, "requests/s", ">= 0.85 x bare Sanic app", measured, ours / bare, ours / bare >= 0.85)
    return [check, *_faults(row, figures, "whole", "constant")]


def _latency(row: int, figures: Figures) -> list[Check]:
    checks = []
    for metric, at_most in (("p50_ms", 2), ("p99_ms", 3)):
        pair = (figures.of("single", "proxy", metric), figures.of("single", "nginx", metric))
        what = f"latency {metric.removesuffix('_ms')}, ms"
        checks.append(_by_ratio(row, what, pair, at_most=at_most, than="nginx"))
    return [*checks, *_faults(row, figures, "single")]


def _back_to_back(row: int, figures: Figures) -> list[Check]:
    what = "CPU s per 1,000 frames"
    pair = _cpu(figures, "back_to_back", "proxy", "nginx")
    checks = [_by_ratio(row, what, pair, at_most=1.6, than="nginx")]
    if figures.has("back_to_back", "proxy-unchecked"):
        bare, nginx = _cpu(figures, "back_to_back", "proxy-unchecked", "nginx")
        measured = f"{number(bare)} against {number(nginx)}"
        checks.append(Check(row, f"{what}, frames unchecked", "reported", measured, bare / nginx))
    return [*checks, *_faults(row, figures, "back_to_back")]


def _paced(row: int, figures: Figures) -> list[Check]:
    what = "CPU s per 1,000 frames"
    other, at_most = (VLLM, 1.25) if figures.has("paced", VLLM) else ("nginx", 2.55)
    first = _by_ratio(row, what, _cpu(figures, "paced", "proxy", other), at_most=at_most, than=other)
    added = figures.of("paced", "proxy", "first_p99_ms") - figures.of("paced", "direct", "first_p99_ms")
    second = _absolute(row, "added time to first frame, p99", added, at_most=3, unit="ms")
    return [first, second, *_faults(row, figures, "paced")]


def _thousand(row: int, figures: Figures) -> list[Check]:
    lost, whole = (figures.of("thousand", "proxy", metric) for metric in ("lost", "streams"))
    checks = [
        Check(row, "streams lost or altered", "0", f"{lost:.0f} of {whole + lost:.0f}", None, lost == 0)
    ]
    rss = figures.of("thousand", "proxy", "rss_mib")
    checks.append(Check(row, "RSS of all processes", "reported", f"{rss:.0f} MiB"))
    for gateway in ("proxy", "nginx", "direct"):
        if figures.has("thousand", gateway):
            late = [figures.of("thousand", gateway, f"total_{p}_ms") - 1000 for p in ("p50", "p99")]
            text = f"{number(late[0])} / {number(late[1])} ms"
            checks.append(Check(row, f"delay of the end, p50 / p99 ({gateway})", "reported", text))
    return checks


def _memory(row: int, figures: Figures) -> list[Check]:
    def of(metric: str) -> float:
        return figures.of("memory", "proxy", metric)

    return [
        _absolute(row, "per open idle stream", of("stream_mib") * KIB_PER_MIB, at_most=32, unit="KiB"),
        _absolute(row, "RSS of an idle worker", of("idle_mib"), at_most=64, unit="MiB"),
        _absolute(
            row,
            f"RSS after {of('growth_after'):,.0f} requests, less after a tenth",
            of("growth_mib"),
            at_most=2,
            unit="MiB",
        ),
    ]


def _large(row: int, figures: Figures) -> list[Check]:
    pair = _cpu(figures, "large", "proxy", "nginx")
    cpu = _by_ratio(row, "CPU s per 1,000 requests of 1 MiB", pair, at_most=6, than="nginx")
    peak = figures.of("large_memory", "proxy", "bodies_per_request")
    memory = _absolute(row, "peak memory per request in flight", peak, at_most=2.2, unit="bodies")
    return [cpu, memory, *_faults(row, figures, "large")]


def _start(row: int, figures: Figures) -> list[Check]:
    imports = figures.of("imports", "proxy", "import_s"), figures.of("imports", "libraries", "import_s")
    starts = figures.of("starts", "proxy", "start_s"), figures.of("starts", "empty", "start_s")
    return [
        _by_ratio(row, "import, CPU s", imports, at_most=1.15, than="its libraries"),
        _by_ratio(row, "start to first 200, s", starts, at_most=1.2, than="empty Sanic app"),
    ]


def _workers(row: int, figures: Figures) -> list[Check]:
    pair = _cpu(figures, "whole", "proxy-2-workers", "proxy")
    what = "CPU s per 1,000 answers, both on one core"
    check = _by_ratio(row, what, pair, at_most=1.1, than="one worker")
    return [check, *_faults(row, figures, "whole", "proxy-2-workers")]


def _straico(row: int, figures: Figures) -> list[Check]:
    pair = _cpu(figures, "whole", "proxy-straico", "proxy")
    check = _by_ratio(row, "CPU s per 1,000 answers", pair, at_most=1.6, than="generic")
    return [check, *_faults(row, figures, "whole", "proxy-straico")]


TLS_CASES = (
    ("whole", "whole answers", 6.9),
    ("back_to_back", "frames back to back", 1.6),
    ("paced", "frames, 200 streams at 20 ms", 2.55),
)


def _tls(row: int, figures: Figures) -> list[Check]:
    checks: list[Check] = []
    for case, load, at_most in TLS_CASES:
        what = f"CPU s per 1,000 {load}"
        try:
            pair = _cpu(figures, case, "proxy-tls", "nginx-tls")
            plain = _cpu(figures, case, "proxy", "nginx")
        except Unmeasured as exc:
            checks.append(Check(row, what, "", f"skipped: {exc}"))
            continue
        check = _by_ratio(row, what, pair, at_most=at_most, than="nginx")
        beside = f"{check.measured}; without TLS {plain[0] / plain[1]:.2f}"
        checks.append(Check(row, what, check.target, beside, check.ratio, check.is_met))
        checks += _faults(row, figures, case, "proxy-tls")
    return checks


ROWS: tuple[Row, ...] = (
    Row(
        1,
        "Whole answers, 64 connections",
        {"whole": ("direct", "nginx", "proxy")},
        _whole,
        peers_in=("whole",),
    ),
    Row(2, "Against a bare Sanic app", {"whole": ("constant", "proxy")}, _framework),
    Row(3, "Latency, 1 connection", {"single": ("direct", "nginx", "proxy")}, _latency, peers_in=("single",)),
    Row(
        4,
        "Streams back to back, 64 at once",
        {"back_to_back": ("direct", "nginx", "proxy", "proxy-unchecked")},
        _back_to_back,
        peers_in=("back_to_back",),
    ),
    Row(
        5,
        "200 streams, a frame each 20 ms",
        {"paced": ("direct", "nginx", "proxy")},
        _paced,
        peers_in=("paced",),
    ),
    Row(6, "1,000 streams at once", {"thousand": ("direct", "nginx", "proxy")}, _thousand),
    Row(7, "Memory of a worker", {"memory": ("proxy",)}, _memory),
    Row(8, "Request bodies of 1 MiB", {"large": ("nginx", "proxy"), "large_memory": ("proxy",)}, _large),
    Row(9, "Import and start", {"imports": ("proxy",), "starts": ("proxy",)}, _start),
    Row(10, "Two workers", {"whole": ("proxy", "proxy-2-workers")}, _workers),
    Row(11, "Straico, request and answer converted", {"whole": ("proxy", "proxy-straico")}, _straico),
    Row(
        12,
        "Rows 1, 4, 5 with TLS to the upstream",
        dict.fromkeys(("whole", "back_to_back", "paced"), ("nginx", "proxy", "nginx-tls", "proxy-tls")),
        _tls,
    ),
)


def chosen(text: str) -> list[Row]:
    """The rows of a list like `1,4,5`; all if it is empty. Raises ValueError with the allowed ones."""
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    known = {str(row.number): row for row in ROWS}
    if unknown := [each for each in numbers if each not in known]:
        raise ValueError(f"no row {', '.join(unknown)}: there are 1 to {len(ROWS)}")
    return [row for row in ROWS if not numbers or str(row.number) in numbers]


def plan(rows: list[Row], peers: tuple[str, ...]) -> dict[str, list[str]]:
    """The gateways to measure by case: those of the rows, then the peers; each once."""
    wanted: dict[str, dict[str, None]] = {}
    for row in rows:
        for case, gateways in row.needs.items():
            wanted.setdefault(case, {}).update(dict.fromkeys(gateways))
    for case in (case for row in rows for case in row.peers_in if peers):
        wanted.setdefault(case, {}).update(dict.fromkeys(peers))
    return {case: list(gateways) for case, gateways in wanted.items()}


def judged(rows: list[Row], figures: Figures) -> list[Check]:
    """The verdict on each row; a row that could not be measured has the reason."""
    checks: list[Check] = []
    for row in rows:
        try:
            checks += row.judge(row.number, figures)
        except Unmeasured as exc:
            checks.append(Check(row.number, row.title, "", f"skipped: {exc}"))
    return checks
