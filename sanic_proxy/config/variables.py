"""How a setting is declared: once, as a field of a dataclass, with its name, type, default, bounds and text.

Theory: `setting()` attaches a `Variable` to a dataclass field. From these declarations `loader` reads the
environment and the TOML file, and `reference` makes the tables of the documents, the example environment
file and the JSON Schema; nothing else lists the settings. A `Kind` is the type of a value: it parses text,
describes what it accepts in words (for messages) and as JSON Schema (for editors).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from typing_extensions import override

from sanic_proxy.config.secret import MIN_SECRET_CHARS, Secret
from sanic_proxy.config.urls import url_fault

PREFIX = "SANIC_PROXY_"

T = TypeVar("T")
Schema = dict[str, object]


# Kinds of values


class Kind(ABC, Generic[T]):
    """The type of a setting. `expects` completes the sentence "expected ..."."""

    is_secret = False

    @property
    @abstractmethod
    def expects(self) -> str:
        """What is accepted, in words."""

    @abstractmethod
    def parse(self, text: str) -> T:
        """The value that `text` stands for. Raises ValueError; its text replaces `expects` if it has one."""

    def from_toml(self, value: object) -> T:
        """The same for a value of a TOML file, which may have a type of its own. Raises ValueError."""
        return self.parse(toml_text(value))

    @abstractmethod
    def schema(self) -> Schema:
        """What is accepted, as JSON Schema for the TOML file."""


@dataclass(frozen=True)
class Text(Kind[str]):
    """Any text."""

    what: str = "text"

    @property
    @override
    def expects(self) -> str:
        return self.what

    @override
    def parse(self, text: str) -> str:
        return text

    @override
    def from_toml(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, also if its type is wrong
        return value

    @override
    def schema(self) -> Schema:
        return {"type": "string"}


@dataclass(frozen=True)
class Integer(Kind[int]):
    """A whole number from `low` to `high`."""

    low: int
    high: int

    @property
    @override
    def expects(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    @override
    def parse(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError
        return within(int(text), self.low, self.high)

    @override
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True)
class Size(Kind[int]):
    """A number of bytes: `33554432`, `32MiB`, `1GB`."""

    low: int
    high: int

    @property
    @override
    def expects(self) -> str:
        return f"a size from {self.low} to {self.high} bytes, such as 33554432 or 32MiB"

    @override
    def parse(self, text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,18})\s*([kmg]i?|)b?", text.lower())
        if match is None:
            raise ValueError
        return within(int(match[1]) * _UNITS[match[2]], self.low, self.high)

    @override
    def schema(self) -> Schema:
        return {"type": ["integer", "string"], "minimum": self.low, "maximum": self.high}


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
MAX_DURATION_S = 86400.0


@dataclass(frozen=True)
class Duration(Kind[float]):
    """Seconds, up to a day: `90`, `1.5`, `10m`, `1h30m`, `500ms`."""

    zero: bool = False

    @property
    @override
    def expects(self) -> str:
        least = "0" if self.zero else "more than 0"
        return f"seconds or a duration such as 10m or 500ms, from {least} to one day"

    @override
    def parse(self, text: str) -> float:
        plain = text.lower().replace(" ", "")
        if _DURATION.fullmatch(plain):
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(plain))
        elif re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", plain):
            seconds = float(plain)
        else:
            raise ValueError
        if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not self.zero):
            raise ValueError
        return within(seconds, 0.0, MAX_DURATION_S)

    @override
    def schema(self) -> Schema:
        return {"type": ["number", "string"], "minimum": 0, "maximum": MAX_DURATION_S}


_FLAGS = dict.fromkeys(("1", "on", "true", "yes"), True) | dict.fromkeys(("0", "off", "false", "no"), False)


@dataclass(frozen=True)
class Flag(Kind[bool]):
    """On or off."""

    @property
    @override
    def expects(self) -> str:
        return "on or off (also true, false, 1, 0)"

    @override
    def parse(self, text: str) -> bool:
        try:
            return _FLAGS[text.lower()]
        except KeyError:
            raise ValueError from None

    @override
    def schema(self) -> Schema:
        return {"type": ["boolean", "string", "integer"]}


@dataclass(frozen=True)
class Choice(Kind[str]):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    @override
    def expects(self) -> str:
        return f"one of {', '.join(word or 'empty' for word in self.words)}"

    @override
    def parse(self, text: str) -> str:
        if text.lower() not in self.words:
            raise ValueError
        return text.lower()

    @override
    def schema(self) -> Schema:
        return {"enum": [*self.words, *(flag for word, flag in _FLAGS.items() if word in self.words)]}


@dataclass(frozen=True)
class TextList(Kind[tuple[str, ...]]):
    """Texts, separated by commas in a variable."""

    what: str = "a list of texts"

    @property
    @override
    def expects(self) -> str:
        return self.what

    @override
    def parse(self, text: str) -> tuple[str, ...]:
        return split_list(text)

    @override
    def from_toml(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise ValueError
        return tuple(value)

    @override
    def schema(self) -> Schema:
        return {"type": "array", "items": {"type": "string", "minLength": 1}}


@dataclass(frozen=True)
class Keys(Kind[tuple[Secret, ...]]):
    """API keys, separated by commas. They are sent in headers, so what cannot be sent there is refused."""

    is_secret = True

    @property
    @override
    def expects(self) -> str:
        return "keys of printable ASCII characters without spaces, separated by commas"

    @override
    def parse(self, text: str) -> tuple[Secret, ...]:
        keys = split_list(text)
        for key in keys:
            if key[0] in "'\"" and key[-1] == key[0]:
                raise ValueError("the key is wrapped in quotes; remove them")
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise ValueError("a key holds a space or a character that is not printable ASCII")
        return tuple(map(Secret, keys))

    @override
    def schema(self) -> Schema:
        return {"type": ["string", "array"], "items": {"type": "string"}}


@dataclass(frozen=True)
class WebAddress(Kind[Secret | None]):
    """The URL of a service, whose path may hold a key; empty: none."""

    is_secret = True

    @property
    @override
    def expects(self) -> str:
        return "an http or https URL without user, query or fragment"

    @override
    def parse(self, text: str) -> Secret | None:
        if text and url_fault(text):
            raise ValueError
        return Secret(text) if text else None

    @override
    def schema(self) -> Schema:
        return {"type": "string"}


@dataclass(frozen=True)
class OneKey(Kind[Secret | None]):
    """One key, long enough not to be guessed or to occur in other text; empty: none."""

    is_secret = True

    @property
    @override
    def expects(self) -> str:
        return f"one key of at least {MIN_SECRET_CHARS} printable ASCII characters without spaces"

    @override
    def parse(self, text: str) -> Secret | None:
        keys = Keys().parse(text)
        if len(keys) > 1 or any(len(key.reveal()) < MIN_SECRET_CHARS for key in keys):
            raise ValueError
        return keys[0] if keys else None

    @override
    def schema(self) -> Schema:
        return {"type": "string", "minLength": MIN_SECRET_CHARS}


@dataclass(frozen=True)
class Choices(Kind[tuple[str, ...]]):
    """Any of a few words, comma-separated."""

    words: tuple[str, ...]

    @property
    @override
    def expects(self) -> str:
        return f"some of {', '.join(self.words)}"

    @override
    def parse(self, text: str) -> tuple[str, ...]:
        chosen = tuple(word.strip().lower() for word in text.split(",") if word.strip())
        if not set(chosen) <= set(self.words):
            raise ValueError
        return chosen

    @override
    def schema(self) -> Schema:
        return {"type": "string"}


@dataclass(frozen=True)
class StoreAddress(Kind[Secret | None]):
    """`sqlite` (None), or the connection URI of a PostgreSQL database, which may hold a password."""

    is_secret = True

    @property
    @override
    def expects(self) -> str:
        return "`sqlite` or a connection URI such as postgresql://user:password@host/database"

    @override
    def parse(self, text: str) -> Secret | None:
        if text == "sqlite":
            return None
        if not re.fullmatch(r"postgres(?:ql)?://[!-~]+", text):
            raise ValueError
        return Secret(text)

    @override
    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^(sqlite|postgres(ql)?://.+)$"}


@dataclass(frozen=True)
class Address(Kind[tuple[str, int] | None]):
    """A host and a port to listen on: `127.0.0.1:9000`, `[::1]:9000`; empty: none."""

    @property
    @override
    def expects(self) -> str:
        return "an address and a port such as 127.0.0.1:9000 or [::1]:9000"

    @override
    def parse(self, text: str) -> tuple[str, int] | None:
        if not text:
            return None
        match = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]\s]+):([0-9]{1,5})", text)
        if match is None:
            raise ValueError
        return match[1].strip("[]"), within(int(match[2]), 1, 65535)

    @override
    def schema(self) -> Schema:
        return {"type": "string", "pattern": ":[0-9]{1,5}$"}


class Origins:
    """The web origins whose pages may call. Empty: none but pages of the proxy's own."""

    __slots__ = ("_exact", "_patterns", "texts")

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self.texts = tuple(texts)
        self._exact = frozenset(text for text in texts if "*" not in text)
        self._patterns = tuple(_origin_pattern(text) for text in texts if "*" in text)

    @property
    def allow_all(self) -> bool:
        """Whether pages of every origin may call."""
        return "*" in self.texts

    def allow(self, origin: str) -> bool:
        """Whether pages of `origin` may call."""
        name = origin.lower()
        return name in self._exact or any(pattern.fullmatch(name) for pattern in self._patterns)


def _origin_pattern(text: str) -> re.Pattern[str]:
    """`*` alone is any origin; in a host it is one or more labels, as a port any number."""
    if text == "*":
        return re.compile(r"(?s).*")
    quoted = re.escape(text)
    if quoted.endswith(r":\*"):
        quoted = quoted[:-2] + r"[0-9]{1,5}"
    return re.compile(quoted.replace(r"\*\.", r"(?:[a-z0-9_-]+\.)+"))


_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?:[0-9]{1,5}|\*))?"
)


@dataclass(frozen=True)
class OriginList(Kind[Origins]):
    """Web origins, separated by commas; `*` for the first labels of a host, for a port, or for all."""

    @property
    @override
    def expects(self) -> str:
        return "origins such as https://app.example.com, https://*.example.com, http://localhost:* or *"

    @override
    def parse(self, text: str) -> Origins:
        origins = [origin.rstrip("/").lower() for origin in split_list(text)]
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError
        return Origins(origins)

    @override
    def schema(self) -> Schema:
        return {"type": ["string", "array"], "items": {"type": "string"}}


_HOST = re.compile(r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class HostList(Kind[frozenset[str]]):
    """Host names, with or without port, separated by commas."""

    @property
    @override
    def expects(self) -> str:
        return "host names such as llm.example.com or llm.example.com:8443, or * for all"

    @override
    def parse(self, text: str) -> frozenset[str]:
        hosts = [host.lower() for host in split_list(text)]
        for host in hosts:
            if host != "*" and not _HOST.fullmatch(host):
                raise ValueError
        return frozenset(hosts)

    @override
    def schema(self) -> Schema:
        return {"type": ["string", "array"], "items": {"type": "string"}}


_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True)
class JsonTable(Kind[dict[str, object]]):
    """Any JSON values by name."""

    @property
    @override
    def expects(self) -> str:
        return "a table of text, numbers, true, false, lists and tables"

    @override
    def parse(self, text: str) -> dict[str, object]:
        raise ValueError

    @override
    def from_toml(self, value: object) -> dict[str, object]:
        if not isinstance(value, dict) or not _is_json(value):
            raise ValueError
        return value

    @override
    def schema(self) -> Schema:
        return {"type": "object"}


def _is_json(value: object) -> bool:
    """Whether a TOML value is one of JSON: TOML has dates, infinities and NaN besides."""
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class Params(JsonTable):
    """Request parameters by name."""

    @property
    @override
    def expects(self) -> str:
        return "a table of parameters"

    @override
    def from_toml(self, value: object) -> dict[str, object]:
        if isinstance(value, dict) and _RESERVED & value.keys():
            raise ValueError
        return super().from_toml(value)


# The proxy itself decides about them.
_RESERVED = frozenset({"model", "stream", "messages", "input"})


@dataclass(frozen=True)
class Headers(Kind[tuple[tuple[str, str], ...]]):
    """A table of header names and values."""

    @property
    @override
    def expects(self) -> str:
        return "a table of header names and values of printable ASCII"

    @override
    def parse(self, text: str) -> NoReturn:
        raise ValueError

    @override
    def from_toml(self, value: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            raise ValueError  # noqa: TRY004 - as above
        for name, text in value.items():
            if not isinstance(text, str) or not re.fullmatch(r"[\x20-\x7e]*", text):
                raise ValueError(f"the value of the header {name!r} is not text of printable ASCII")
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header")
        return tuple((name.lower(), text) for name, text in value.items())

    @override
    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": {"type": "string"}}


MAX_SHOWN_CHARS = 80


def value_problem(value: object, kind: Kind[object], exc: ValueError) -> str:
    """What is wrong with `value`, for which `kind` raised `exc`. A secret is not shown."""
    if exc.args:
        return str(exc)
    got = "" if kind.is_secret else f", got {str(value)[:MAX_SHOWN_CHARS]!r}"
    return f"expected {kind.expects}{got}"


def split_list(text: str) -> tuple[str, ...]:
    """The parts between commas, without blanks; empty parts are left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


N = TypeVar("N", int, float)


def within(value: N, low: N, high: N) -> N:
    """`value`, if it lies from `low` to `high`. Raises ValueError."""
    if not low <= value <= high:
        raise ValueError
    return value


def toml_text(value: object) -> str:
    """A TOML value as the text of a variable. Raises ValueError for a table or a date."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ",".join(str(item) for item in value)
    raise ValueError


# Declarations


@dataclass(frozen=True, slots=True)
class Variable:
    """One declared setting. `default` is its text in the documents; `name` has no prefix."""

    name: str
    kind: Kind[object]
    default: str
    meaning: str

    @property
    def key(self) -> str:
        """Its name in the TOML file's table `[proxy]`."""
        return self.name.lower()

    @property
    def row(self) -> str:
        """Its row in the table of the documents."""
        return f"| `{PREFIX}{self.name}` | {self.default or 'empty'} | {self.meaning} |"


_DECLARED = "variable"


def setting(name: str, kind: Kind[Any], default: object, meaning: str, *, shown: str | None = None) -> Any:
    """A dataclass field that is read from the variable `name`. `shown` is the default in the documents."""
    variable = Variable(name, kind, _shown(default) if shown is None else shown, meaning)
    return dataclasses.field(default=default, metadata={_DECLARED: variable})


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if isinstance(default, str | int) else ""


def declared(kind: type[Any]) -> Iterator[tuple[str, Variable | type[object]]]:
    """The fields of a dataclass that hold settings, in order: a variable, or a dataclass of variables."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        variable = field.metadata.get(_DECLARED)
        if variable is not None:
            yield field.name, variable
        elif isinstance(hints[field.name], type) and dataclasses.is_dataclass(hints[field.name]):
            yield field.name, hints[field.name]


def variables_of(kind: type[object]) -> Iterator[Variable]:
    """All variables of a dataclass and of those within it, in the order of their declaration."""
    for _, entry in declared(kind):
        if isinstance(entry, Variable):
            yield entry
        else:
            yield from variables_of(entry)


def suggestion(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """A clause that guesses what a misspelled name was meant to be, or ""."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""
