"""What the conversion of one file shares: the document, the variables, and the notes that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sanic_proxy.config.litellm.document import Document, Path, shown
from sanic_proxy.config.litellm.keys import Rules
from sanic_proxy.config.litellm.notes import Note, Outcome
from sanic_proxy.config.targets import MAX_COUNT
from sanic_proxy.config.variables import suggestion

REFERENCE = "os.environ/"
MAX_SHOWN_CHARS = 60
# How a note says that a deployment is not served.
LEFT_OUT = "this target is left out"


def referred(value: object) -> str | None:
    """The variable that `os.environ/NAME` names; None for any other value."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        return value.removeprefix(REFERENCE).strip() or None
    return None


@dataclass(slots=True)
class Work:
    """`environ` are the variables, those of the file included; `secrets` are made for values that are written
    in the file and appear in no text.
    """

    document: Document
    environ: Mapping[str, str]
    notes: list[Note] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    secret_lines: dict[str, int] = field(default_factory=dict)

    def note(self, path: Path, outcome: Outcome, text: str = "") -> None:
        self.notes.append(Note(self.document.line(path), shown(path), outcome, text))

    def note_keys(self, path: Path, names: Iterable[str], rules: Rules, *, skip: Iterable[str] = ()) -> None:
        """Note each key of a section by its rule; a key without one is unknown."""
        for name in names:
            if name in skip:
                continue
            rule = rules.get(name)
            if rule is None:
                text = f"it is not a key of LiteLLM's{suggestion(name, rules)}"
                self.note((*path, name), "unknown", text)
            elif rule.outcome == "exact":
                self.note((*path, name), "exact")
            else:
                self.note((*path, name), rule.outcome, rule.text)

    def value(self, value: object) -> Any:
        """`value`, or the variable's if it names one; None where that is not set."""
        name = referred(value)
        return value if name is None else self.environ.get(name, "").strip() or None

    def text(self, value: object) -> str | None:
        """A value as text; None for none, for an empty one, and for lists and mappings."""
        found = self.value(value)
        return str(found).strip() or None if isinstance(found, str | int | float) else None

    def number(self, path: Path, value: object) -> float | None:
        """A value as a number from 0; None where there is none, with a note if it is something else."""
        found = self.value(value)
        if found is None:
            return None
        try:
            number = math.nan if isinstance(found, bool) else float(found)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number) and number >= 0:
            return number
        self.note(path, "ignored", "expected a number from 0")
        return None

    def count(self, path: Path, value: object) -> int | None:
        """The same as a whole number from 1; 0 is none."""
        number = self.number(path, value)
        return min(int(number), MAX_COUNT) or None if number is not None else None

    def is_on(self, value: object) -> bool:
        """Whether a value means yes."""
        found = self.value(value)
        return found is True or (
            isinstance(found, str) and found.strip().lower() in {"true", "1", "yes", "on"}
        )

    def secret(self, path: Path, text: str, kind: str = "KEY") -> str:
        """The name of a variable for a value that is written in the file at `path`."""
        for name, known in self.secrets.items():
            if known == text:
                return name
        number = len(self.secrets) + 1
        while (name := f"LITELLM_{kind}_{number}") in self.environ:
            number += 1
        self.secrets[name] = text
        self.secret_lines[name] = self.document.line(path)
        return name
