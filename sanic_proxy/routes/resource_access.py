"""Which files and batches a client may use, where a provider's key stands for several clients.

Theory. A provider answers whoever has its key, so the proxy has to know which client made what. While several
clients exist, the creator of each file and batch is kept in the shared state before its id is answered; the
output files of a batch belong to its client once the provider has named them. An id of another client gets
the same answer as one that does not exist, and is left out of lists. So is an id whose creator is not known,
except for the clients that the operator has named (`SANIC_PROXY_UNOWNED_FILES`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote_plus, urlencode

from sanic_proxy.errors import InvalidRequest, NotFound, StoreFailed, UpstreamBadResponse
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import Row, resource_path
from sanic_proxy.providers.base import Call
from sanic_proxy.state import AppState
from sanic_proxy.state_store.base import StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Pages that are read on for one list when all entries so far are other clients'.
MAX_PAGES = 20
_OUTPUTS = ("output_file_id", "error_file_id")


def no_such(row: Row, resource_id: object) -> NotFound:
    """The error for an id that does not exist, or is another client's."""
    kind = "batch" if row.path.startswith("/batches/") else "file"
    return NotFound(f"No such {kind}: {str(resource_id)[:80]!r}", param=row.resource_field or "id")


async def guard(
    state: AppState, call: Call, provider: str, row: Row, fields: JsonMapping
) -> ResourceGuard | None:
    """What checks the answer to `call`; None where there is only one client, or nothing that is a client's.

    Raises NotFound for a resource that the client may not use, InvalidRequest for an input file that is no
    id, StoreFailed.
    """
    if not row.is_stateful or not await _reading(state.keys.surely_many()):
        return None
    made = ResourceGuard(state, call, provider, row)
    if row.resource_field:
        await made.check_input(fields)
    elif call.resource is not None:
        await made.check_resource(call.resource)
    return made


@dataclass(slots=True)
class ResourceGuard:
    """Whose the resources of one call to `provider` are. Its operations raise StoreFailed."""

    state: AppState
    call: Call
    provider: str
    row: Row

    @property
    def _client(self) -> str:
        return self.call.record.client.id

    @property
    def _may_use_unowned(self) -> bool:
        client = self.call.record.client
        return not {client.id, client.name}.isdisjoint(self.state.settings.unowned_files)

    def _may_use(self, owner: str | None) -> bool:
        return self._may_use_unowned if owner is None else owner == self._client

    async def _owner(self, resource: str) -> str | None:
        found = await _reading(self.state.resource_clients.find(self.provider, (resource,)))
        return found.get(resource)

    async def check_resource(self, resource: str) -> None:
        """Raises NotFound if `resource` is not the client's."""
        if not self._may_use(await self._owner(resource)):
            raise no_such(self.row, resource.rpartition("/")[2])

    async def check_input(self, fields: JsonMapping) -> None:
        """Check the file that the body names, and have the provider get the body as it was understood here.

        A JSON object may have a key twice, of which a provider could read the other value.
        """
        name = self.row.resource_field
        value = fields.get(name)
        self.call.body, self.call.model_span = (codec.dumps(fields),), None
        if value is None:
            return
        if self.call.resource is None:
            raise InvalidRequest(f"The parameter `{name}` must be the id of a file", param=name)
        await self.check_resource(self.call.resource)

    async def answered(self, body: bytes | None, ask: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """The answer as the client may see it; `ask` sends the call again, with another path.

        Raises UpstreamBadResponse for a list that is none.
        """
        if self.call.method == "GET" and self.row.path == self.row.collection:
            return await self._listed(body, ask)
        described = None if body is None else codec.loads_tolerant(body)
        if isinstance(described, dict):
            await self._remember(described)
        return body

    async def _remember(self, described: Json) -> None:
        row, clients = self.row, self.state.resource_clients
        try:
            if row.method == "POST" and row.path == row.collection:
                made = resource_path(f"{row.collection}/<id>", described.get("id"))
                if made is not None:
                    await clients.created(self.provider, made, self._client)
            elif row.collection == "/batches":
                own, outputs = self.call.resource, _outputs(described)
                if own is not None and outputs and await self._owner(own) == self._client:
                    await clients.made_of(self.provider, outputs, self._client)
        except StoreError as exc:
            # It is made, and must not be made again because of an error. No client gets at it then.
            logger.error("the client of a file or batch is not noted: %s", exc)  # noqa: TRY400

    async def _listed(self, body: bytes | None, ask: Callable[[], Awaitable[bytes | None]]) -> bytes:
        path, _, query = self.call.path.partition("?")
        pairs = [pair for pair in query.split("&") if pair]
        others = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) != "after"]
        pages = 0
        while True:
            listed = None if body is None else codec.loads_tolerant(body)
            entries = listed.get("data") if isinstance(listed, dict) else listed
            if not isinstance(entries, list):
                raise UpstreamBadResponse("The provider's list cannot be read")
            kept = await self._own(entries)
            if not isinstance(listed, dict):
                return codec.dumps(kept)
            last = _id_of(entries[-1]) if entries else None
            pages += 1
            if kept or last is None or listed.get("has_more") is not True or pages == MAX_PAGES:
                return codec.dumps(_page(listed, kept))
            self.call.path = f"{path}?{'&'.join([*others, urlencode({'after': last})])}"
            body = await ask()

    async def _own(self, entries: list[Any]) -> list[Any]:
        named = [(entry, resource_path(f"{self.row.collection}/<id>", _id_of(entry))) for entry in entries]
        owners = await _reading(
            self.state.resource_clients.find(self.provider, [path for _, path in named if path is not None])
        )
        kept = [entry for entry, path in named if path is not None and self._may_use(owners.get(path))]
        own = [entry for entry, path in named if path is not None and owners.get(path) == self._client]
        if self.row.collection == "/batches" and (
            outputs := [path for each in own for path in _outputs(each)]
        ):
            await _reading(self.state.resource_clients.made_of(self.provider, outputs, self._client))
        return kept


def _page(listed: Json, kept: list[Any]) -> Json:
    """The list with only `kept`; what names its ends names no other entry."""
    page = {**listed, "data": kept}
    for name, at in (("first_id", 0), ("last_id", -1)):
        if name in page:
            page[name] = _id_of(kept[at]) if kept else None
    return {name: value for name, value in page.items() if name not in {"total", "total_count"}}


def _id_of(entry: object) -> str | None:
    id_ = entry.get("id") if isinstance(entry, dict) else None
    return id_ if isinstance(id_, str) else None


def _outputs(batch: JsonMapping) -> list[str]:
    """The files that a provider has made for a batch."""
    return [path for name in _OUTPUTS if (path := resource_path("/files/<id>", batch.get(name))) is not None]


async def _reading(pending: Awaitable[T]) -> T:
    try:
        return await pending
    except StoreError as exc:
        logger.error("the clients of files and batches cannot be read: %s", exc)  # noqa: TRY400
        raise StoreFailed("Whose files and batches these are is not known now: retry later") from None
