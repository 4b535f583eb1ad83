"""Objects of a request, checked, whose fields may be spelled in lowerCamelCase or in snake_case. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sanic_proxy.translation.gemini.values import camel_keys
from sanic_proxy.translation.responses.checked import Checked, wrong

# An integer of at most 64 bits, as protocol buffers have them.
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_WHOLE_LIMIT = 2**63


class Fields(Checked):
    """One object of the API, its fields by their names in lowerCamelCase."""

    __slots__ = ()

    def __init__(self, value: object, path: str = "") -> None:
        super().__init__(value, path)
        self.fields = camel_keys(self.fields)

    def inner(self, name: str) -> Fields | None:
        """The object of that name; None where there is none."""
        value = self.fields.get(name)
        return None if value is None else Fields(value, f"{self.path}{name}.")

    def objects(self, name: str) -> Iterator[Fields]:
        """The objects in the list of that name, which may be missing; a single object is a list of one."""
        value = self.fields.get(name)
        if isinstance(value, dict):
            yield Fields(value, f"{self.path}{name}.")
            return
        if not isinstance(value, list | None):
            raise wrong(self.path + name, "a list")
        for index, item in enumerate(value or ()):
            yield Fields(item, f"{self.path}{name}.{index}.")

    def texts(self, name: str) -> list[str]:
        """The strings in the list of that name, which may be missing."""
        value = self.fields.get(name)
        if not isinstance(value, list | None):
            raise wrong(self.path + name, "a list of strings")
        for index, item in enumerate(value or ()):
            if not isinstance(item, str):
                raise wrong(f"{self.path}{name}.{index}", "a string")
        return list(value or ())

    def whole_number(self, name: str) -> int | None:
        """An integer, which protocol buffers write as a number (40, 40.0) or as a string ("40")."""
        value = self.fields.get(name)
        if isinstance(value, str):
            value = int(value) if _WHOLE.fullmatch(value) else value
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return self.integer(name)
        if not -_WHOLE_LIMIT <= value < _WHOLE_LIMIT:
            raise wrong(self.path + name, "an integer of 64 bits")
        return value

    def word(self, name: str) -> str:
        """The value of an enumeration, in upper case; "" where it is missing or unspecified."""
        text = (self.optional_text(name) or "").upper()
        return "" if text.endswith("_UNSPECIFIED") else text
