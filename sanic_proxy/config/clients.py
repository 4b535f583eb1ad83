"""The tables `[clients.NAME]`, `[teams.NAME]` and `[limits]`: who may use what, and how much.

Their clients cannot be changed at run time; keys that can are made by the admin routes and the command.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from typing_extensions import override

from sanic_proxy.config.budgets import LIMIT_KEYS, Money, scope_limits
from sanic_proxy.config.capture import CAPTURE_KEYS, capture_share
from sanic_proxy.config.layers import Layers
from sanic_proxy.config.model import ClientSettings
from sanic_proxy.config.rules import DEFAULT_SOFT, ClientRules, ScopeLimits, TeamRules
from sanic_proxy.config.secret import Secret
from sanic_proxy.config.tables import Key, Table, TableReader
from sanic_proxy.config.targets import MAX_COUNT
from sanic_proxy.config.variables import (
    PREFIX,
    Flag,
    Integer,
    JsonTable,
    Keys,
    Kind,
    Schema,
    Text,
    TextList,
    suggestion,
    toml_text,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FIRST_YEAR, _LAST_YEAR = 1970, 9998
_NAME_RULE = "up to 63 letters, digits, - . and _"


@dataclass(frozen=True)
class Moment(Kind[float]):
    """A date or a time, as seconds since the epoch. Without a time zone it is in UTC.

    Years before 1970 and after 9998 are refused: with a time zone they may have no date in UTC.
    """

    @property
    @override
    def expects(self) -> str:
        return "a date or time such as 2027-01-31 or 2027-01-31T12:00:00Z"

    @override
    def parse(self, text: str) -> float:
        return _seconds(datetime.fromisoformat(text))

    @override
    def from_toml(self, value: object) -> float:
        if isinstance(value, datetime):
            return _seconds(value)
        if isinstance(value, date):
            return _seconds(datetime.combine(value, time()))
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, also if its type is wrong
        try:
            return self.parse(value)
        except ValueError:
            raise ValueError from None  # not with datetime's own text

    @override
    def schema(self) -> Schema:
        return {"type": "string"}


def _seconds(moment: datetime) -> float:
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True)
class Digests(Kind[tuple[str, ...]]):
    """SHA-256 digests of keys, in hexadecimal: one, or a list."""

    @property
    @override
    def expects(self) -> str:
        return "the SHA-256 digest of a key in 64 hexadecimal digits, or a list of them"

    @override
    def parse(self, text: str) -> tuple[str, ...]:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
            raise ValueError
        return (text.lower(),)

    @override
    def from_toml(self, value: object) -> tuple[str, ...]:
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise ValueError
        return tuple(digest for text in texts for digest in self.parse(toml_text(text)))

    @override
    def schema(self) -> Schema:
        one = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


_ACCESS_KEYS: Table = {
    "models": Key(TextList("a list of model names"), "the models that may be used, with `*`; none: all"),
    "endpoints": Key(
        TextList("a list of paths"),
        "the endpoints that may be used, such as `/chat/completions` or `/files*`; none: all",
    ),
}
TEAM_KEYS: Table = {**_ACCESS_KEYS, **LIMIT_KEYS}
# Those of a client, whether it is declared in the settings or its key is made at run time.
RULE_KEYS: Table = {
    **_ACCESS_KEYS,
    **LIMIT_KEYS,
    "max_requests": Key(Integer(1, MAX_COUNT), "requests of one session of an agent"),
    "max_cost": Key(Money(zero=False), "US dollars that one session of an agent may cost"),
    "expires": Key(Moment(), "the date or time from which on the key is invalid"),
    "team": Key(Text("the name of a team"), "the `[teams.NAME]` table whose limits the client shares"),
    "metadata": Key(JsonTable(), "values that the admin routes show"),
    "ui": Key(Flag(), "`true`: the client may sign in to the page `/ui` with its key, to see its own use"),
}
CLIENT_KEYS: Table = {
    "key_env": Key(
        Text("the name of a variable"), "the variable that holds the client's key, or several with commas"
    ),
    "key_sha256": Key(Digests(), "instead: the SHA-256 digest of the key in hexadecimal, or a list of them"),
    **RULE_KEYS,
    **CAPTURE_KEYS,
}


class ClientReader:
    """Reads the tables out of the layers; problems are added to these."""

    def __init__(self, found: Layers, api_keys: Sequence[Secret]) -> None:
        self._found = found
        self._api_keys = api_keys
        self._problems = found.problems
        self._reader = TableReader(found.toml, found.problems)

    def limits(self) -> ScopeLimits:
        """The table `[limits]`, of all clients together."""
        return scope_limits(self._reader.values("[limits]", self._reader.table("limits"), LIMIT_KEYS))

    def teams(self) -> tuple[TeamRules, ...]:
        """The tables `[teams.NAME]`."""
        return tuple(
            TeamRules(name, scope_limits(values), values.get("models", ()), _endpoints(values))
            for name, values in self._named("teams", TEAM_KEYS).items()
        )

    def clients(self, teams: Sequence[TeamRules]) -> tuple[ClientSettings, ...]:
        """The tables `[clients.NAME]`."""
        known = [team.name for team in teams]
        clients = []
        owners = {digest_of(key.reveal()): f"{PREFIX}API_KEYS" for key in self._api_keys}
        for name, values in self._named("clients", CLIENT_KEYS).items():
            where = f"[clients.{name}]"
            keys = self._keys(where, values)
            digests = (*(digest_of(key.reveal()) for key in keys), *values.get("key_sha256", ()))
            if not digests and not {"key_env", "key_sha256"} & values.keys():
                self._problems.append(f"{where}: needs key_env or key_sha256")
            for digest in digests:
                if owners.setdefault(digest, where) != where:
                    self._problems.append(f"{where}: its key is also in {owners[digest]}")
            team = values.get("team", "")
            if team and team not in known:
                self._problems.append(f"{where} team: there is no [teams.{team}]{suggestion(team, known)}")
            clients.append(ClientSettings(rules_of(name, name, values), digests, keys))
        return tuple(clients)

    def _named(self, kind: str, keys: Table) -> dict[str, dict[str, Any]]:
        """The good values of the tables `[kind.NAME]`, by name."""
        found = {}
        for name, table in self._reader.subtables(kind).items():
            if NAME.fullmatch(name):
                found[name] = self._reader.values(f"[{kind}.{name}]", table, keys)
            else:
                self._problems.append(f"[{kind}.{name}]: a name is {_NAME_RULE}")
        return found

    def _keys(self, where: str, values: Mapping[str, Any]) -> tuple[Secret, ...]:
        """The keys in the variable that the table names."""
        variable = values.get("key_env")
        if variable is None:
            return ()
        text = self._found.values.get(variable, "")
        if not text:
            self._problems.append(f"{where} key_env: the variable {variable} is not set")
            return ()
        try:
            return Keys().parse(text)
        except ValueError as exc:
            self._problems.append(f"{variable}: {exc}")
            return ()


def digest_of(key: str) -> str:
    """The SHA-256 digest of a key, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def rules_of(id_: str, name: str, values: Mapping[str, Any]) -> ClientRules:
    """The rules in the good values of a client's table."""
    return ClientRules(
        id=id_,
        name=name,
        limits=scope_limits(values),
        models=values.get("models", ()),
        endpoints=_endpoints(values),
        expires=values.get("expires"),
        team=values.get("team", ""),
        max_requests=values.get("max_requests"),
        max_cost_nano=values.get("max_cost"),
        metadata=values.get("metadata", {}),
        capture=capture_share(values),
        ui=values.get("ui", False),
    )


def _endpoints(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(endpoint_pattern, values.get("endpoints", ())))


def endpoint_pattern(text: str) -> str:
    """A pattern of endpoints without the base URL: `/v1/files*` and `files*` -> `/files*`."""
    pattern = text.removeprefix("/v1") if text.startswith("/v1/") else text
    return pattern if pattern.startswith(("/", "*")) else f"/{pattern}"


def values_of(rules: ClientRules) -> dict[str, Any]:
    """The values of a client's table, as `rules_of` reads them; what has its default is left out."""
    limits = rules.limits
    values = {
        "models": rules.models,
        "endpoints": rules.endpoints,
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrent": limits.concurrent,
        "burst": limits.burst,
        "budget": limits.budgets,
        "soft": None if limits.soft == DEFAULT_SOFT else limits.soft,
        "max_requests": rules.max_requests,
        "max_cost": rules.max_cost_nano,
        "expires": rules.expires,
        "team": rules.team,
        "metadata": rules.metadata,
        "ui": rules.ui or None,
    }
    return {name: value for name, value in values.items() if value is not None}
