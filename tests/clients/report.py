"""Verdicts and their table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtest.bench.report import table

Kind = Literal["pass", "FAIL", "gap", "fixed", "-"]
# A client, a feature, a provider.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell: `why` is empty only if all is well."""

    kind: Kind
    why: str = ""


def verdict(fault: str, gap: str | None) -> Outcome:
    """The content of a cell; `fault` is what went wrong, `gap` why it was expected to."""
    if not fault:
        return Outcome("pass") if gap is None else Outcome("fixed", f"passes, but is listed as a gap: {gap}")
    return Outcome("FAIL", fault) if gap is None else Outcome("gap", f"{gap} [{fault}]")


def has_failed(outcomes: Mapping[Key, Outcome]) -> bool:
    return any(outcome.kind == "FAIL" for outcome in outcomes.values())


def rendered(outcomes: Mapping[Key, Outcome]) -> str:
    """A line per feature and provider, a column per client, and the reasons numbered below."""
    clients = list(dict.fromkeys(client for client, _, _ in outcomes))
    rows = list(dict.fromkeys((feature, provider) for _, feature, provider in outcomes))
    notes: dict[str, int] = {}
    lines = [
        [feature, provider, *(_cell(outcomes.get((client, feature, provider)), notes) for client in clients)]
        for feature, provider in rows
    ]
    heading = ["feature", "through", *clients]
    footnotes = [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join([table(heading, lines, left=len(heading)), *([""] if footnotes else []), *footnotes])


def _cell(outcome: Outcome | None, notes: dict[str, int]) -> str:
    if outcome is None:
        return ""
    if not outcome.why:
        return outcome.kind
    return f"{outcome.kind} {notes.setdefault(outcome.why, len(notes) + 1)}"


def counted(outcomes: Mapping[Key, Outcome]) -> str:
    """How many cells passed, failed and so on, in a line."""
    kinds: Sequence[Kind] = ("pass", "FAIL", "gap", "fixed")
    counts = {kind: sum(outcome.kind == kind for outcome in outcomes.values()) for kind in kinds}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count or kind == "pass")
