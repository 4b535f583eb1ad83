"""TOML text for the tables of our configuration file. The standard library only reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dumps(tables: Mapping[str, Any]) -> str:
    """`tables`, whose values are tables, as TOML: a `[header]` for each table or table in a table."""
    return "\n".join(text for name, table in tables.items() for text in _tables((name,), table))


def _tables(path: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    is_group = len(path) == 1 and bool(table) and all(isinstance(item, Mapping) for item in table.values())
    if is_group:
        for name, inner in table.items():
            yield from _tables((*path, name), inner)
        return
    lines = [f"{_key(name)} = {_value(item)}" for name, item in table.items()]
    yield "\n".join([f"[{'.'.join(map(_key, path))}]", *lines, ""])


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        if any(isinstance(item, Mapping) for item in value):
            return "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _text(text: str) -> str:
    """A basic string: TOML's escapes are those of JSON, and U+007F is escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
