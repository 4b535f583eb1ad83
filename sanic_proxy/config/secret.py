"""A key or password, so that it cannot leak by accident."""

from __future__ import annotations

from typing import NoReturn

from typing_extensions import override

MIN_SECRET_CHARS = 8


class Secret:
    """A value that is only read on purpose: it cannot be printed, compared by guess, pickled or dumped."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the header or comparison it is needed in."""
        return self._value

    @property
    def hint(self) -> str:
        """Enough to distinguish keys: the last four characters of a long one, nothing of a short one."""
        shown = self._value[-4:] if len(self._value) >= 2 * MIN_SECRET_CHARS else ""
        return f"...{shown}" if shown else "****"

    @override
    def __repr__(self) -> str:
        return "Secret(****)"

    @override
    def __str__(self) -> str:
        return "****"

    @override
    def __format__(self, spec: str) -> str:
        return format("****", spec)

    @override
    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be copied, pickled or dumped")
