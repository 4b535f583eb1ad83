"""Tables of the TOML file whose keys are declared as data: reading them, and their JSON Schema.

A `Table` declares the keys that a table has, and what they do. Its values are read by `TableReader`, which
collects problems; tables within lists are read by `entries`, which raises them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from sanic_proxy.config.variables import Kind, Schema, suggestion, value_problem, within


@dataclass(frozen=True)
class Number(Kind[float]):
    """A number from `low` to `high`, whole or not."""

    low: float
    high: float

    @property
    @override
    def expects(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    @override
    def parse(self, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?:e-?[0-9]{1,2})?", text.lower()):
            raise ValueError
        return within(float(text), self.low, self.high)

    @override
    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table: its kind, or the keys of a table within it, and what it does."""

    kind: Kind[Any] | Mapping[str, Key]
    meaning: str


Table = Mapping[str, Key]


class TableReader:
    """Reads the tables of a parsed file, and adds to `problems`."""

    def __init__(self, toml: Mapping[str, object], problems: list[str]) -> None:
        self._toml = toml
        self._problems = problems

    def subtables(self, name: str) -> Mapping[str, Mapping[str, object]]:
        """The tables `[name.X]` by their X."""
        tables = self._toml.get(name, {})
        if isinstance(tables, dict) and all(isinstance(table, dict) for table in tables.values()):
            return tables
        self._problems.append(f"[{name}] must hold tables: [{name}.NAME]")
        return {}

    def table(self, name: str) -> Mapping[str, object]:
        """The table `[name]`."""
        table = self._toml.get(name, {})
        if isinstance(table, dict):
            return table
        self._problems.append(f"[{name}] must be a table")
        return {}

    def values(self, where: str, table: Mapping[str, object], keys: Table) -> dict[str, Any]:
        """The values of a table's keys that are good; the others are problems."""
        values: dict[str, object] = {}
        for name, value in table.items():
            if name not in keys:
                self._problems.append(
                    f"{where} {name}: is not a setting of this table{suggestion(name, keys)}"
                )
                continue
            kind = keys[name].kind
            try:
                if isinstance(kind, Kind):
                    values[name] = kind.from_toml(value)
                elif isinstance(value, dict):
                    values[name] = self.values(f"{where} {name}", value, kind)
                else:
                    self._problems.append(f"{where} {name}: expected a table with {', '.join(kind)}")
            except ValueError as exc:
                if isinstance(kind, Kind):
                    self._problems.append(f"{where} {name}: {value_problem(value, kind, exc)}")
        return values


def entries(value: object, keys: Mapping[str, Kind[Any]], what: str) -> dict[str, Any]:
    """The parsed entries of a table. Raises ValueError that names the first wrong one."""
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, whatever its type
    parsed: dict[str, object] = {}
    for name, entry in value.items():
        if name not in keys:
            raise ValueError(f"{name!r} is not a key of {what}{suggestion(name, keys)}")
        try:
            parsed[name] = keys[name].from_toml(entry)
        except ValueError as exc:
            raise ValueError(f"{name}: {value_problem(entry, keys[name], exc)}") from None
    return parsed


def entries_schema(keys: Mapping[str, Kind[Any]]) -> Schema:
    """The JSON Schema of a table that `entries` reads."""
    return {
        "type": "object",
        "properties": {name: kind.schema() for name, kind in keys.items()},
        "additionalProperties": False,
    }


def table_schema(table: Table) -> Schema:
    """The JSON Schema of a declared table."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {
                **(key.kind.schema() if isinstance(key.kind, Kind) else table_schema(key.kind)),
                "description": key.meaning,
            }
            for name, key in table.items()
        },
    }
