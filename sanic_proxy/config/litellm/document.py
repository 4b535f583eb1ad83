"""A YAML file as plain values, with the line on which each of them stands. PyYAML is imported here only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Where a value stands: the keys and positions that lead to it.
Path = tuple[str | int, ...]

# No file is that large; a few aliases of aliases (`&a`, `*a`) can make it so.
MAX_NODES = 200_000
MAX_DEPTH = 100
MAX_SHOWN_CHARS = 200
_QUOTED = re.compile(r"'[^']{4,}'")


class DocumentError(ValueError):
    """The file is not YAML, or larger than any such file is."""


@dataclass(slots=True)
class Document:
    """The values, and the line of each path (from 1). `repeated` are keys that occur twice in one mapping."""

    root: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    repeated: list[Path] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def top(self, name: str) -> object:
        """The value of a key at the top of the file; None where there is none."""
        return self.root.get(name) if isinstance(self.root, dict) else None

    def section(self, name: str) -> Mapping[str, object]:
        """A mapping at the top of the file; empty where there is none."""
        found = self.top(name)
        return found if isinstance(found, dict) else {}


def shown(path: Path) -> str:
    """A path as messages write it: `model_list[0].litellm_params.model`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    shown_text = "".join(character if character.isprintable() else "?" for character in text)
    return shown_text.removeprefix(".")[:MAX_SHOWN_CHARS] or "the file"


def parse(text: str) -> Document:
    """The document in `text`; its root is None if there is nothing but comments. Raises DocumentError."""
    import yaml  # noqa: PLC0415 - 2 MiB, which only proxies with such a file need

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        document = Document()
        if node is not None:
            document.root = _Reader(loader, document).value(node, ())
    except yaml.YAMLError as exc:
        raise DocumentError(_reason(exc)) from None
    finally:
        loader.dispose()
    return document


def _reason(error: object) -> str:
    """What is wrong and where. PyYAML's own text quotes the file, which may hold a key."""
    mark = getattr(error, "problem_mark", None)
    problem = _QUOTED.sub("'...'", getattr(error, "problem", None) or "it is not YAML")
    return problem if mark is None else f"line {mark.line + 1}: {problem}"


class _Reader:
    """Makes values of nodes; PyYAML's own constructor would drop the lines."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._nodes = 0

    def value(self, node: Any, path: Path) -> object:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise DocumentError(f"line {node.start_mark.line + 1}: the file is too large or too deep")
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if node.id == "mapping":
            return self._mapping(node, path)
        if node.id == "sequence":
            return [self.value(item, (*path, place)) for place, item in enumerate(node.value)]
        return _plain(self._loader.construct_object(node))

    def _mapping(self, node: Any, path: Path) -> dict[str, object]:
        self._loader.flatten_mapping(node)  # `<<: *defaults`
        values: dict[str, object] = {}
        for key, item in node.value:
            inner = (*path, str(key.value) if key.id == "scalar" else "?")
            if inner[-1] in values:
                self._document.repeated.append(inner)
            self._document.lines[inner] = key.start_mark.line + 1
            values[str(inner[-1])] = self.value(item, inner)
        return values


def _plain(value: object) -> object:
    """A scalar as JSON knows it: a date is its text."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
