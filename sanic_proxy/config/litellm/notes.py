"""What became of each key of LiteLLM's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

# exact: it does here what it does there. approximate: nearly, as the text says. ignored: it has no effect.
# unknown: it is not a key of LiteLLM's either.
Outcome = Literal["exact", "approximate", "ignored", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("exact", "approximate", "ignored", "unknown")


@dataclass(frozen=True, slots=True)
class Note:
    """One key, the line on which it stands, and what became of it. It holds no value of the file."""

    line: int
    where: str
    outcome: Outcome
    text: str = ""

    @override
    def __str__(self) -> str:
        return f"line {self.line}: {self.where}: {self.outcome}{': ' if self.text else ''}{self.text}"


def summary(notes: Sequence[Note]) -> str:
    """How many keys there are of each outcome."""
    counts = [(sum(note.outcome == outcome for note in notes), outcome) for outcome in OUTCOMES]
    return ", ".join(f"{count} {outcome}" for count, outcome in counts if count) or "no keys"
