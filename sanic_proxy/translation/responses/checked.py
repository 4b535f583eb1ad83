"""Values of a client's JSON, checked for their type. Each function raises InvalidRequest with the path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping


class Checked:
    """One object of a request, and the path to it: "" for the request itself, else as `input.3.`."""

    __slots__ = ("fields", "path")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise wrong(path.removesuffix("."), "an object")
        self.fields: Json = value
        self.path = path

    def text(self, name: str) -> str:
        """A string that has to be there."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise wrong(self.path + name, "a string", is_missing=name not in self.fields)
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self.fields.get(name) is None else self.text(name)

    def flag(self, name: str) -> bool | None:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(self.path + name, "true or false")
        return value

    def integer(self, name: str) -> int | None:
        value = self.fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(self.path + name, "an integer")
        return value

    def number(self, name: str) -> float | None:
        value = self.fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong(self.path + name, "a number")
        return value

    def json_object(self, name: str) -> Json | None:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            raise wrong(self.path + name, "an object")
        return value

    def child(self, name: str) -> Checked | None:
        """The object of that name; None where there is none."""
        value = self.fields.get(name)
        return None if value is None else Checked(value, f"{self.path}{name}.")

    def children(self, name: str) -> Iterator[Checked]:
        """The objects in the list of that name, which may be missing."""
        value = self.fields.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            raise wrong(self.path + name, "a list")
        for index, item in enumerate(value):
            yield Checked(item, f"{self.path}{name}.{index}.")


def wrong(path: str, expected: str, *, is_missing: bool = False) -> InvalidRequest:
    """The error for a value of the wrong type at `path`."""
    what = f"The parameter `{path}`" if path else "The request"
    return InvalidRequest(
        f"{what} {'is missing' if is_missing else f'must be {expected}'}", param=path or None
    )


def given(fields: JsonMapping) -> Iterator[tuple[str, Any]]:
    """The fields that are set: null counts as missing."""
    return ((name, value) for name, value in fields.items() if value is not None)
