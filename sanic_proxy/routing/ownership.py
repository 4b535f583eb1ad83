"""Which of a provider's keys made a resource. Decides, and does no I/O.

A file or a batch exists only in the account whose key made it: another key answers 404, or has a
resource of somebody else. So what an answer describes is remembered with the key that gave it. The
memory is one worker's and bounded; a resource that is not in it is looked up by asking (`attempts.owned`).

A resource is named by the path that describes it, as in `/files/file-abc`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from sanic_proxy.openai.endpoints import resource_path

P = TypeVar("P")

MAX_RESOURCES = 16_384


class ResourceOwners(Generic[P]):
    """Resource -> the provider, with one of its keys, that has it; the least recently used are dropped."""

    __slots__ = ("_limit", "_owners")

    def __init__(self, limit: int = MAX_RESOURCES) -> None:
        self._limit = limit
        self._owners: OrderedDict[tuple[str, str], P] = OrderedDict()

    def find(self, provider_name: str, resource: str) -> P | None:
        """The owner of `resource` at the provider of that name; None if it is not known."""
        owner = self._owners.get((provider_name, resource))
        if owner is not None:
            self._owners.move_to_end((provider_name, resource))
        return owner

    def remember(self, provider_name: str, resources: Iterable[str], owner: P) -> None:
        for resource in resources:
            self._owners[provider_name, resource] = owner
            self._owners.move_to_end((provider_name, resource))
        while len(self._owners) > self._limit:
            self._owners.popitem(last=False)


def resources_in(collection: str, described: Any) -> Iterator[str]:
    """The resources of the same account that an answer names: the one it describes, and its files.

    `collection` is the path of the endpoint, as in `/batches`.
    """
    if not isinstance(described, dict):
        return
    for name, value in described.items():
        folder = collection if name == "id" else "/files" if name.endswith("_file_id") else None
        if folder is not None and (path := resource_path(f"{folder}/<id>", value)) is not None:
            yield path
