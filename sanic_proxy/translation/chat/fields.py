"""A JSON object of a request, and where it stands: typed access that names the path of what is wrong."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping


class Fields:
    """The object at `path` (`messages.2.tool_calls.0`). A field that is null counts as missing.

    All methods raise InvalidRequest, with the path of the field, for a value of another type.
    """

    __slots__ = ("path", "value")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise wrong_type(path, "an object")
        self.value: JsonMapping = value
        self.path = path

    def at(self, name: str | int) -> str:
        """The path of the field `name`."""
        return f"{self.path}.{name}" if self.path else str(name)

    def text(self, name: str) -> str | None:
        value = self.value.get(name)
        if value is not None and not isinstance(value, str):
            raise wrong_type(self.at(name), "a string")
        return value

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise InvalidRequest(f"The parameter `{self.at(name)}` is missing", param=self.at(name))
        return value

    def flag(self, name: str) -> bool | None:
        value = self.value.get(name)
        if value is not None and not isinstance(value, bool):
            raise wrong_type(self.at(name), "true or false")
        return value

    def number(self, name: str) -> float | None:
        value = self.value.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise wrong_type(self.at(name), "a number")
        return value

    def whole(self, name: str) -> int | None:
        value = self.number(name)
        if isinstance(value, float):
            if not value.is_integer():
                raise wrong_type(self.at(name), "a whole number")
            return int(value)
        return value

    def mapping(self, name: str) -> Json | None:
        value = self.value.get(name)
        if value is not None and not isinstance(value, dict):
            raise wrong_type(self.at(name), "an object")
        return value

    def member(self, name: str) -> Fields | None:
        value = self.value.get(name)
        return None if value is None else Fields(value, self.at(name))

    def required_member(self, name: str) -> Fields:
        return Fields(self.value.get(name), self.at(name))

    def members(self, name: str) -> Iterator[Fields]:
        """The objects of a list."""
        for index, item in enumerate(self.items(name)):
            yield Fields(item, f"{self.at(name)}.{index}")

    def items(self, name: str) -> list[Any]:
        value = self.value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise wrong_type(self.at(name), "a list")
        return value

    def others(self, known: Container[str]) -> Json:
        """The fields with other names than the known ones."""
        return {name: value for name, value in self.value.items() if value is not None and name not in known}


def wrong_type(path: str, expected: str) -> InvalidRequest:
    if not path:
        return InvalidRequest(f"The request body must be {expected}")
    return InvalidRequest(f"The parameter `{path}` must be {expected}", param=path)
