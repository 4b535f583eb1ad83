"""What administrators do with keys, by HTTP or by the command: checked, and stored.

The rules of a client are given as the keys of a `[clients.NAME]` table, and read as these are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sanic_proxy.config.clients import RULE_KEYS, digest_of, rules_of, values_of
from sanic_proxy.config.model import Settings
from sanic_proxy.config.rules import NANO, ClientRules, iso_time
from sanic_proxy.config.tables import TableReader
from sanic_proxy.config.variables import suggestion
from sanic_proxy.errors import Conflict, InvalidRequest, NotFound, StoreFailed
from sanic_proxy.governance import accounts, keys
from sanic_proxy.governance.accounts import Spending
from sanic_proxy.governance.keys import (
    ID_PREFIX,
    KEY_PREFIX,
    ClientToken,
    KeyConflict,
    KeyFilter,
    StoredKey,
)
from sanic_proxy.json_types import Json
from sanic_proxy.state_store.base import Connection, StateStore, StoreError

T = TypeVar("T")

MAX_GRACE_S = 366 * 86_400.0
MAX_RULES_CHARS = 65_536
# Neither a key nor an id nor a digest, all of which a reference may be as well.
_NAME = re.compile(r"(?!sk-|key_|[0-9a-fA-F]{64}\Z)[A-Za-z0-9](?:[A-Za-z0-9 _./@:+-]{0,253}[A-Za-z0-9])?")
_KEY = re.compile(r"sk-[\x21-\x2b\x2d-\x7e]+")


class KeyAdmin:
    """Keys made at run time. `on_change` is called after each change.

    Its operations raise ClientErrors for what is wrong with a request, and StoreFailed.
    """

    def __init__(
        self, settings: Settings, store: StateStore, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._store = store
        self._on_change = on_change

    async def create(
        self,
        name: str,
        table: Mapping[str, object],
        key: str | None = None,
        *,
        is_blocked: bool = False,
        user_id: str = "",
    ) -> tuple[StoredKey, str]:
        """A new client, and its key: `key`, or a random one."""
        self._check_name(name)
        rules = self._rules(keys.new_id(), name, table)
        literal = keys.new_key() if key is None else self._checked_key(key)
        new = keys.made(literal, rules, time.time(), is_blocked=is_blocked, user_id=user_id)
        return await self._change(lambda connection: keys.create(connection, new)), literal

    async def find(self, reference: str) -> StoredKey:
        """The client with that id, name, key or digest of a key."""
        found = None
        if self._store.exists():
            found = await self._run(lambda connection: keys.find(connection, reference))
        if found is None:
            raise _not_found(reference)
        return found

    async def listed(self, wanted: KeyFilter, limit: int, offset: int = 0) -> tuple[int, list[StoredKey]]:
        """How many clients there are, and those of one page."""
        if not self._store.exists():
            return 0, []
        now = time.time()
        return await self._run(lambda connection: keys.select(connection, wanted, now, limit, offset))

    async def update(
        self,
        reference: str,
        table: Mapping[str, object],
        *,
        name: str | None = None,
        is_blocked: bool | None = None,
        user_id: str | None = None,
    ) -> StoredKey:
        """Change what is given: keys of the table, of which None removes one, and the rest where not None."""
        old = await self._present(reference)
        if name is not None and name != old.rules.name:
            self._check_name(name)

        def changed(old: StoredKey) -> StoredKey:
            rules = self._rules(old.id, old.rules.name if name is None else name, table, values_of(old.rules))
            return replace(
                old,
                rules=rules,
                is_blocked=old.is_blocked if is_blocked is None else is_blocked,
                user_id=old.user_id if user_id is None else user_id,
            )

        return await self._change(lambda connection: keys.update(connection, old.id, changed, time.time()))

    async def rotate(
        self, reference: str, grace_s: float = 0.0, key: str | None = None
    ) -> tuple[StoredKey, str]:
        """A new key for a client. The present one is valid for another `grace_s` seconds."""
        if not 0 <= grace_s <= MAX_GRACE_S:
            raise InvalidRequest(f"A grace period lasts from 0 to {MAX_GRACE_S / 86_400:.0f} days")
        old = await self._present(reference)
        literal = keys.new_key() if key is None else self._checked_key(key)
        work = partial(keys.rotate, id_=old.id, key=literal, grace_s=grace_s, now=time.time())
        return await self._change(work), literal

    async def delete(self, reference: str) -> StoredKey:
        """Delete a client."""
        old = await self._present(reference)
        return await self._change(partial(keys.delete, id_=old.id, now=time.time()))

    async def names(self) -> dict[str, str]:
        """The names of all clients by their ids, also of those in the settings and of deleted ones."""
        found = await self._run(keys.names) if self._store.exists() else {}
        return {**found, **{client.rules.id: client.rules.name for client in self._settings.clients}}

    async def spending(self, clients: Sequence[StoredKey]) -> dict[str, Spending]:
        """What the clients have spent, by their ids."""
        limits, now = {key.id: key.rules.limits for key in clients}, time.time()
        return await self._run(lambda connection: accounts.spending(connection, limits, now))

    async def tokens(self) -> dict[str, ClientToken]:
        """What LiteLLM's calls name clients by whose keys were made at run time, by their ids."""
        return await self._run(keys.tokens) if self._store.exists() else {}

    async def client_id(self, reference: str) -> str:
        """The id of the client that is named so; `reference` itself where there is no such key.

        Clients of the settings have ids without being in the store.
        """
        try:
            return (await self.find(reference)).id if reference else ""
        except NotFound:
            return reference

    async def _present(self, reference: str) -> StoredKey:
        found = await self.find(reference)
        if found.deleted is not None:
            raise _not_found(reference)
        return found

    async def _change(self, work: Callable[[Connection], T]) -> T:
        try:
            result = await self._run(work)
        except KeyConflict as exc:
            raise Conflict(str(exc)) from exc
        except KeyError as exc:
            raise NotFound("The key was deleted meanwhile") from exc
        self._on_change()
        return result

    async def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._store.run(work)
        except StoreError as exc:
            raise StoreFailed(str(exc)) from exc

    # Checks

    def _rules(
        self, id_: str, name: str, table: Mapping[str, object], old: Mapping[str, object] | None = None
    ) -> ClientRules:
        problems: list[str] = []
        given = {key: value for key, value in table.items() if value is not None}
        values: dict[str, Any] = {**(old or {}), **TableReader({}, problems).values("", given, RULE_KEYS)}
        for key in table.keys() - given.keys():
            values.pop(key, None)
        teams = [team.name for team in self._settings.teams]
        if "team" in given and (team := values.get("team")) and team not in teams:
            problems.append(f"team: there is no [teams.{team}] in the settings{suggestion(str(team), teams)}")
        if problems:
            raise InvalidRequest("; ".join(problem.strip() for problem in problems))
        rules = rules_of(id_, name, values)
        try:
            text = keys.rules_text(rules)
        except TypeError:  # nested too deeply, an integer of more than 64 bits, or a lone surrogate
            raise InvalidRequest("The rules of a key cannot be written as JSON", param="metadata") from None
        if len(text) > MAX_RULES_CHARS:
            raise InvalidRequest(f"The rules of a key have at most {MAX_RULES_CHARS} characters as JSON")
        return rules

    def _check_name(self, name: str) -> None:
        if name and not _NAME.fullmatch(name):
            raise InvalidRequest(
                "A name has up to 255 letters, digits, blanks and . _ - / @ : +, begins and ends with a "
                f"letter or digit, and does not begin with {KEY_PREFIX} or {ID_PREFIX}"
            )
        if any(client.rules.name == name for client in self._settings.clients):
            raise Conflict(f"There is a client with the name {name!r} in the settings")

    def _checked_key(self, key: str) -> str:
        if not keys.MIN_KEY_CHARS <= len(key) <= keys.MAX_KEY_CHARS or not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"A key begins with {KEY_PREFIX} and has {keys.MIN_KEY_CHARS} to {keys.MAX_KEY_CHARS} "
                "printable ASCII characters without blanks and commas"
            )
        declared = {digest for client in self._settings.clients for digest in client.digests}
        admin = self._settings.admin_key
        known = [*self._settings.api_keys, *(() if admin is None else (admin,))]
        if digest_of(key) in declared or any(key == secret.reveal() for secret in known):
            raise Conflict("That key is in the settings already")
        return key


def _not_found(reference: str) -> NotFound:
    shown = keys.hint_of(reference) if reference.startswith(KEY_PREFIX) else reference[:100]
    return NotFound(f"There is no key {shown!r}")


def key_object(key: StoredKey, now: float) -> Json:
    """A client as JSON: the keys of its table, and what is known of its key."""
    rules, limits = key.rules, key.rules.limits
    return {
        "id": key.id,
        "name": rules.name,
        "key": key.hint,
        "status": key.status(now),
        "models": list(rules.models),
        "endpoints": list(rules.endpoints),
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrent": limits.concurrent,
        "burst": limits.burst,
        "budget": [each.as_table() for each in limits.budgets],
        "soft": list(limits.soft),
        "max_requests": rules.max_requests,
        "max_cost": None if rules.max_cost_nano is None else rules.max_cost_nano / NANO,
        "expires": None if rules.expires is None else iso_time(rules.expires),
        "team": rules.team or None,
        "metadata": dict(rules.metadata),
        "ui": rules.ui,
        "created": iso_time(key.created),
        "updated": iso_time(key.updated),
    }
