"""The scenarios: the requests, and what is required of the calls and of the wall's log. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtest.failover.client import Outcome
from loadtest.failover.wall import ANSWER, FAST, FULL, NO_PREFILL, Entry, Times

Verdict = Literal["pass", "partial", "safe", "fail"]
VERDICTS: tuple[Verdict, ...] = ("pass", "partial", "safe", "fail")


@dataclass(frozen=True)
class Run:
    """One cell as it went: its calls, the wall's log, and whether the proxy answered afterwards."""

    outcomes: Sequence[Outcome]
    log: Sequence[Entry]
    primary: str
    times: Times
    is_alive: bool

    @property
    def attempts(self) -> list[Entry]:
        """The attempts on the model that fails."""
        return [entry for entry in self.log if entry.model == self.primary]

    @property
    def last(self) -> Outcome:
        return self.outcomes[-1]

    def early(self, seconds: float) -> int:
        """How many attempts the primary got within so many seconds of the first."""
        first = min((entry.at for entry in self.attempts), default=0.0)
        return sum(entry.at - first <= seconds for entry in self.attempts)


# What is wrong with a run, in words: broken requirements fail it, broken wishes make it partial.
Check = Callable[[Run], Iterator[str]]


def _nothing(_run: Run) -> Iterator[str]:
    return iter(())


@dataclass(frozen=True)
class Scenario:
    """One fault. `limit_s` is the client's, `calls` and `interval_s` for a series of them."""

    name: str
    title: str
    limit_s: float
    required: Check = _nothing
    wished: Check = _nothing
    fallback: str = "fb-ok"
    is_error_ideal: bool = False
    calls: tuple[int, int] = (1, 1)  # in the full and the fast profile
    interval_s: tuple[float, float] = (0.0, 0.0)

    @property
    def model(self) -> str:
        return f"fb-{self.name.lower()}"


def complete(outcome: Outcome) -> bool:
    return outcome.error is None and " ".join(outcome.text.split()) == ANSWER


def problems(scenario: Scenario, run: Run) -> tuple[list[str], list[str]]:
    """The requirements and the wishes that a run has broken."""
    required = [*_always(run), *scenario.required(run)]
    return required, list(scenario.wished(run))


def verdict(scenario: Scenario, run: Run) -> Verdict:
    """What a run is worth: a clean error is safe, an answer that is not the answer fails."""
    required, wished = problems(scenario, run)
    if required:
        return "fail"
    if scenario.is_error_ideal:
        is_refused = run.last.error is not None and len(run.attempts) == 1
        return "pass" if is_refused else "partial" if complete(run.last) else "safe"
    if not all(complete(outcome) for outcome in run.outcomes):
        return "safe"
    return "partial" if wished else "pass"


def _always(run: Run) -> Iterator[str]:
    for outcome in run.outcomes:
        if outcome.has_hung:
            yield "a call hung"
        elif outcome.error is None and not complete(outcome):
            yield f"{len(outcome.text.split())} words were taken for the answer"
    if not run.is_alive:
        yield "the proxy did not answer afterwards"


def _at_most(count: int, seconds: float | None = None) -> Check:
    def check(run: Run) -> Iterator[str]:
        sent = len(run.attempts) if seconds is None else run.early(seconds)
        if sent > count:
            yield f"{sent} attempts on the primary, more than {count}"

    return check


def _at_least(count: int) -> Check:
    def check(run: Run) -> Iterator[str]:
        if len(run.attempts) < count:
            yield f"{len(run.attempts)} attempts on the primary, fewer than {count}"

    return check


def _within(seconds: float) -> Check:
    def check(run: Run) -> Iterator[str]:
        if run.last.seconds > seconds:
            yield f"the call took {run.last.seconds:.1f} s, longer than {seconds:g} s"

    return check


def _all(*checks: Check) -> Check:
    return lambda run: (problem for check in checks for problem in check(run))


def _waited(run: Run) -> Iterator[str]:
    first_two = [entry.at for entry in run.attempts[:2]]
    if len(first_two) == 2 and first_two[1] - first_two[0] < run.times.retry_after - 0.2:
        yield "the Retry-After was not waited for"


def _only_smaller_again(run: Run) -> Iterator[str]:
    sizes = [entry.prompt_words for entry in run.attempts]
    if len(sizes) > 1 and sizes[1] >= sizes[0]:
        yield "the same prompt was sent to the same model again"


def _has_usage(run: Run) -> Iterator[str]:
    if run.last.error is None and not run.last.usage:
        yield "no usage"


def _names_the_fallback(run: Run) -> Iterator[str]:
    if run.last.error is None and "fb-ok" not in (run.last.model or ""):
        yield f"the answer's model is {run.last.model}"


def _no_lost_prefill(run: Run) -> Iterator[str]:
    was_refused = any(entry.model == NO_PREFILL and entry.outcome == "400" for entry in run.log)
    if was_refused and run.last.error is not None:
        yield "a refused prefill became the client's error"


def _recovers(run: Run) -> Iterator[str]:
    outage_s = run.times.outage
    if any(entry.at > outage_s and entry.outcome == "answer" for entry in run.attempts):
        return
    yield "the primary did not answer again after the outage"


SCENARIOS: Sequence[Scenario] = (
    Scenario("S01", "429 once, Retry-After", 20, _at_most(2, 1.5), _all(_at_least(2), _waited)),
    Scenario("S02", "429 for ever", 40, _all(_at_most(4, 3.0), _at_most(6))),
    Scenario("S03", "500 once", 20, wished=_at_least(2)),
    Scenario("S04", "503 for ever", 40, _at_most(6)),
    Scenario("S05", "reset once", 20),
    Scenario("S06", "no response", 130, _within(100), _at_most(1)),
    Scenario("S07", "slow first token", 60, wished=_within(15)),
    Scenario("S08", "cut", 40),
    Scenario("S09", "stall", 70, _within(45)),
    Scenario("S10", "malformed chunk", 30),
    Scenario("S11", "no [DONE]", 30, _within(8), _has_usage),
    Scenario("S12", "context length", 20, _all(_at_most(2), _only_smaller_again)),
    Scenario("S13", "content filter", 20, is_error_ideal=True),
    Scenario("S14", "cut, fallback without prefill", 40, _no_lost_prefill, fallback=NO_PREFILL),
    Scenario("S15", "flapping", 30, _recovers, calls=(20, 10), interval_s=(4.0, 1.2)),
    Scenario("S16", "accounting", 40, _all(_at_most(6), _names_the_fallback), _has_usage),
)
PROFILES: dict[str, Times] = {"full": FULL, "fast": FAST}
