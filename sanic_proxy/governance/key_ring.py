"""The clients of one worker, by their keys."""

from __future__ import annotations

import hashlib

from sanic_proxy.config.model import Settings
from sanic_proxy.config.rules import ClientRules
from sanic_proxy.observability.record import Client

MAX_REMEMBERED = 4096
_ID_DIGITS = 16
_LABEL_DIGITS = 8


class KeyRing:
    """The clients by their keys, which are compared as digests of the whole key.

    The time of a look-up depends on digests alone, which clients cannot choose.
    """

    __slots__ = ("_clients", "_known", "has_many", "is_empty")

    def __init__(self, settings: Settings) -> None:
        self._clients = {
            _digest(key.reveal()): _unlimited(_digest(key.reveal())) for key in settings.api_keys
        }
        for entry in settings.clients:
            client = Client(id=entry.rules.id, name=entry.rules.name, rules=entry.rules)
            self._clients.update((bytes.fromhex(digest), client) for digest in entry.digests)
        self._known: dict[str | None, Client] = {}
        # Whether no key is needed, and whether there are several clients, of whom none may see what belongs
        # to another one.
        self.is_empty = settings.is_open
        self.has_many = len({client.id for client in self._clients.values()}) > 1

    def client_with(self, key: str) -> Client | None:
        """The client whose key this is."""
        return self._clients.get(_digest(key))

    def remembered(self, authorization: str | None) -> Client | None:
        """The client of a whole Authorization header that was accepted before: no need to hash its key."""
        return self._known.get(authorization)

    def remember(self, authorization: str, client: Client) -> None:
        """Remember an accepted header. Bounded: one key may be written with any number of blanks."""
        if len(self._known) < MAX_REMEMBERED:
            self._known[authorization] = client


def _unlimited(digest: bytes) -> Client:
    """The client of a key in SANIC_PROXY_API_KEYS, which has no rules of its own."""
    id_ = digest.hex()[:_ID_DIGITS]
    name = id_[:_LABEL_DIGITS]
    return Client(id=id_, name=name, rules=ClientRules(id=id_, name=name))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
