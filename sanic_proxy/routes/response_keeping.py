"""What one request of the Responses API has to do with stored responses: those before it, and its own.

A request may continue a response in three ways. If the proxy has the response's content, the conversation is
put in front of the request's input, and any provider can answer it. If a provider has stored the response,
the request goes to that provider with the same key, as it is. A response that is not known may still be known
to a provider, where no other client could own it: then the request goes to providers that store responses.

The answer is kept before the client gets its end, so that nobody sees the id of a response that cannot be
found. An answer that could not be kept says so: `store` is false in it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.dialects.base import ParsedRequest
from sanic_proxy.dialects.responses import RESPONSES
from sanic_proxy.errors import InvalidRequest, NotFound
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.in_flight import UnderWay
from sanic_proxy.openai import codec
from sanic_proxy.openai.responses import TERMINAL_EVENTS, event_frame, new_response_id
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routes.chat import Keeper
from sanic_proxy.routing import attempts
from sanic_proxy.server import bodies
from sanic_proxy.state import AppState
from sanic_proxy.state_store.base import StoreError
from sanic_proxy.state_store.responses import (
    MAX_ITEM_BYTES,
    ConversationTooLarge,
    NewResponse,
    ReferredItem,
    ResponseStore,
    ResponseTooLarge,
)
from sanic_proxy.streams import sse
from sanic_proxy.translation.responses.stored import (
    as_items,
    continued,
    portable,
    reference_ids,
    with_items,
    without_lone_surrogates,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

NOT_STORED_HEADER = "x-sanic-proxy-not-stored"
_CONTINUABLE = frozenset({"completed", "incomplete"})
_EVENT = b"event: response."


class Previous(NamedTuple):
    """What a request continues: the id and, as far as they are known, its items and where it is stored.

    `is_stored`: the items are in the store, so that a continuation can refer to them.
    """

    id: str
    items: list[bytes] | None = None
    provider: ChatProvider | None = None
    is_stored: bool = True


class ResponseKeeper(Keeper):
    """See the module. `response` is the answer, once it has been kept or found to be not storable.

    `owner` is the id of the client, `given` its own input. `store` is None if nothing is to be stored.
    `is_for_native`: only providers that speak Responses may answer, or only those that do not; None: all.
    `referred` is the provider that has stored items which the input refers to.
    """

    def __init__(
        self,
        state: AppState,
        owner: str,
        store: ResponseStore | None,
        given: object,
        previous: Previous | None,
        referred: ChatProvider | None = None,
    ) -> None:
        self._state = state
        self._referred = referred
        self.owner = owner
        self._store = store
        self._given = given
        self._previous = previous
        self.id = new_response_id()
        self.response: Json | None = None
        self.is_stored = False
        self.is_native = False
        self.is_for_native: bool | None = None
        self.repeated: Json = {"id": self.id, "store": store is not None}
        if previous is not None:
            self.repeated["previous_response_id"] = previous.id

    @override
    def targets(self, targets: attempts.Targets) -> attempts.Targets:
        previous = self._previous
        if self.is_for_native is not None:
            targets = [target for target in targets if _is_native(target.provider) is self.is_for_native]
        if self._referred is not None:
            targets = [target for target in targets if target.provider is self._referred]
            if not targets:
                raise InvalidRequest(
                    f"`input` refers to items that the provider {self._referred.name} has stored, which this "
                    "model does not belong to: send the items themselves",
                    param="input",
                )
        if previous is None or previous.items is not None:
            return targets
        if previous.provider is not None:
            left = [target for target in targets if target.provider is previous.provider]
        else:
            left = [target for target in targets if _is_native(target.provider)]
        if left:
            return left
        if previous.provider is None:
            raise not_found(previous.id, is_off=self._state.responses is None)
        raise InvalidRequest(
            f"The previous response is stored by the provider {previous.provider.name}, which this model "
            "does not belong to: continue it with a model of that provider, or send the whole conversation "
            "as `input`",
            param="previous_response_id",
        )

    @override
    async def keep(self, chat: ChatRequest, body: bytes) -> bytes:
        response = codec.loads_tolerant(body)
        if not isinstance(response, dict):
            return body
        problem = await self._keep(chat, response)
        if not problem or self.is_native:
            return body
        chat.answer_headers = [*chat.answer_headers, (NOT_STORED_HEADER, problem)]
        return codec.dumps(self.response)

    @override
    async def keep_stream(self, chat: ChatRequest, frames: bytes) -> bytes:
        event = _terminal_event(frames)
        if event is None or not isinstance(event.get("response"), dict):
            return frames
        problem = await self._keep(chat, event["response"])
        if not problem or self.is_native:
            return frames
        at = frames.rfind(_EVENT)
        last = frames[frames.find(b"\n\n", at) + 2 :]
        return frames[:at] + event_frame({**event, "response": self.response}) + last

    @override
    async def keep_failure(self, chat: ChatRequest, frames: bytes) -> bytes:
        """As OpenAI keeps a failed response. What became of one at its provider is the provider's to say."""
        return frames if chat.wire is chat.dialect else await self.keep_stream(chat, frames)

    async def _keep(self, chat: ChatRequest, response: Json) -> str:
        """Store `response`. Returns why that was not possible; "" if it was, or was not asked for."""
        self.response = response
        self.is_native = chat.wire is chat.dialect
        if self._store is None or not isinstance(id_ := response.get("id"), str):
            return ""
        try:
            if self.is_native:
                ids = [item["id"] for item in response.get("output") or () if _has_id(item)]
                await self._refer(self._store, id_, chat.provider, ids)
            else:
                await self._store.add(self._stored(id_, response))
        except ResponseTooLarge:
            problem = "too_large"
            logger.info("a response is larger than %d MiB and was not stored", MAX_ITEM_BYTES // 2**20)
        except StoreError as exc:
            problem = "store_unavailable"
            logger.error("a response could not be stored: %s", exc)  # noqa: TRY400 - no bug of ours
        else:
            self.is_stored = True
            return ""
        self.response = {**response, "store": False}
        return problem

    async def _refer(
        self, store: ResponseStore, id_: str, provider: ChatProvider | None, item_ids: list[str]
    ) -> None:
        keys = () if provider is None else self._state.keyed.get(provider.name, ())
        for number, candidate in enumerate(keys):
            if candidate is provider:
                await store.refer(self.owner, id_, candidate.name, number, item_ids)

    def queued(self, response: JsonMapping, worker: str) -> NewResponse:
        """A response that is to be stored before `worker` makes it."""
        return replace(self._stored(self.id, response), worker=worker)

    def _stored(self, id_: str, response: JsonMapping) -> NewResponse:
        previous = self._previous
        status = str(response.get("status"))
        link = previous.id if previous is not None and previous.is_stored else ""
        body = without_lone_surrogates(codec.dumps(response))
        return NewResponse(self.owner, id_, status, body, self._input_items(), link)

    def _input_items(self) -> bytes:
        """The items that are stored as the input of this response, as JSON."""
        own = codec.dumps(as_items(self._given))
        previous = self._previous
        if previous is None or previous.is_stored or not previous.items:
            return own
        return b"[" + b",".join([*previous.items, *([own[1:-1]] if own != b"[]" else [])]) + b"]"

    def remembered(self, max_bytes: int) -> Previous | None:
        """The answer as a connection remembers it, which can continue it; None if that is the store's part.

        Also None for what has no answer that can be continued, and for more than `max_bytes`.
        """
        response, previous = self.response, self._previous
        if self.is_stored or response is None or response.get("status") not in _CONTINUABLE:
            return None
        if previous is not None and previous.items is None:
            return None
        output = response.get("output") or []
        if self.is_native:
            output = portable(output)
        before = [] if previous is None else previous.items or []
        own = (codec.dumps(as_items(self._given)), without_lone_surrogates(codec.dumps(output)))
        items = [*before, *(piece[1:-1] for piece in own if piece != b"[]")]
        if sum(map(len, items)) > max_bytes:
            return None
        return Previous(str(response.get("id")), items, is_stored=False)


async def prepared(
    state: AppState,
    owner: str,
    asked: ParsedRequest,
    counted: UnderWay,
    local: Previous | None = None,
) -> tuple[ParsedRequest, ResponseKeeper | None]:
    """The request with the conversation that it continues, and what keeps its answer.

    `local` is what the request may continue without the store. `counted` is what the bytes of the
    conversation count for. Raises InvalidRequest, Overloaded or StoreFailed.
    """
    fields = asked.fields
    wants_store = fields.get("store")
    if not isinstance(wants_store, bool | None):
        raise InvalidRequest("The parameter `store` must be a boolean", param="store")
    id_ = fields.get("previous_response_id")
    if not isinstance(id_, str | None):
        raise InvalidRequest(
            "The parameter `previous_response_id` must be a string", param="previous_response_id"
        )
    if fields.get("conversation") is not None and state.keys.has_many:
        raise InvalidRequest(
            "The parameter `conversation` is not available here, as it could name another client's: send the "
            "whole conversation as `input`",
            param="conversation",
        )
    referred: ChatProvider | None = None
    if ids := reference_ids(fields.get("input")):
        asked, referred = await _with_referred_items(state, owner, asked, counted, ids)
        fields = asked.fields
    store = state.responses if wants_store is not False else None
    previous = None
    if id_:
        previous = local if local is not None and local.id == id_ else await _previous(state, owner, id_)
    if store is None and previous is None and local is None and referred is None:
        return asked, None
    keeper = ResponseKeeper(state, owner, store, fields.get("input"), previous, referred)
    if previous is not None and previous.items is not None:
        asked = await _continued(state, asked, previous.items, counted)
    return asked, keeper


async def _previous(state: AppState, owner: str, id_: str) -> Previous:
    """What the id of a previous response stands for."""
    store = state.responses
    if store is None:
        if state.keys.has_many:
            raise not_found(id_, is_off=True)
        return Previous(id_)
    stored = await reading(store.find(owner, id_))
    if stored is None:
        if state.keys.has_many:
            raise not_found(id_)
        return Previous(id_)
    if stored.provider:
        providers = state.keyed.get(stored.provider, ())
        if stored.key_number >= len(providers):
            raise not_found(id_)
        return Previous(id_, provider=providers[stored.key_number])
    if stored.status not in _CONTINUABLE:
        raise InvalidRequest(
            f"The previous response cannot be continued: its status is {stored.status}",
            param="previous_response_id",
        )
    try:
        items = await reading(store.conversation(owner, id_, state.settings.max_body_bytes))
    except ConversationTooLarge:
        raise InvalidRequest(
            f"The conversation up to the previous response is larger than {state.settings.max_body_bytes} "
            "bytes: compact it, and send it as `input`",
            param="previous_response_id",
        ) from None
    if items is None:
        raise not_found(id_)
    return Previous(id_, items)


async def _with_referred_items(
    state: AppState, owner: str, asked: ParsedRequest, counted: UnderWay, ids: Sequence[str]
) -> tuple[ParsedRequest, ChatProvider | None]:
    """The request with the stored items of those `ids`, and the provider that has some of them.

    Items that are not known are left for providers, where no other client could own them. Raises NotFound.
    """
    found: dict[str, ReferredItem] = {}
    if state.responses is not None:
        limit_bytes = state.settings.max_body_bytes
        try:
            found = await reading(state.responses.items(owner, ids, limit_bytes))
        except ConversationTooLarge:
            raise InvalidRequest(
                f"The items that `input` refers to are larger than {limit_bytes} bytes", param="input"
            ) from None
    missing = [id_ for id_ in ids if id_ not in found]
    if missing and state.keys.has_many:
        raise NotFound(
            f"Item with id '{missing[0][:100]}' not found. Only items of stored responses can be referred "
            "to: send the item itself",
            param="input",
            code="item_not_found",
        )
    referred: ChatProvider | None = None
    for item in found.values():
        if item.provider:
            keys = state.keyed.get(item.provider, ())
            provider = keys[item.key_number] if item.key_number < len(keys) else None
            if provider is None or referred not in {None, provider}:
                raise InvalidRequest("`input` refers to items that no single provider has", param="input")
            referred = provider
    items = {id_: item.body for id_, item in found.items() if item.body}
    if items:
        added_bytes = sum(len(items.get(id_, b"")) for id_ in ids)
        asked = await _parsed(state, asked, with_items(asked.fields, items), counted, added_bytes)
    return asked, referred


async def _continued(
    state: AppState, asked: ParsedRequest, items: list[bytes], counted: UnderWay
) -> ParsedRequest:
    return await _parsed(state, asked, continued(asked.fields, items), counted, sum(map(len, items)))


async def _parsed(
    state: AppState, asked: ParsedRequest, body: bytes, counted: UnderWay, added_bytes: int
) -> ParsedRequest:
    """The request with another body, which has `added_bytes` more."""
    state.traffic.hold(counted, counted.held_bytes + added_bytes)
    parsed = await bodies.parsed(body, state.traffic.parsing)
    return ParsedRequest(
        body,
        parsed.value,
        asked.model,
        asked.is_streaming,
        asked.include_usage,
        parsed.model_span,
        asked.collect_s,
    )


async def reading(pending: Awaitable[T]) -> T:
    """The result of an operation of the store. Raises StoreFailed where that fails."""
    try:
        return await pending
    except StoreError as exc:
        logger.error("stored responses cannot be read: %s", exc)  # noqa: TRY400 - no bug of ours
        raise errors.StoreFailed("Stored responses are not available now: retry later") from None


def not_found(id_: str, *, is_off: bool = False) -> InvalidRequest:
    """The error for a previous response that does not exist, or is another client's.

    `is_off`: no response of this model is stored at all.
    """
    advice = " Responses are not stored here: send the whole conversation as `input`." if is_off else ""
    return InvalidRequest(
        f"Previous response with id '{id_[:100]}' not found.{advice}",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def _is_native(provider: ChatProvider) -> bool:
    return RESPONSES.name in provider.dialects


def _has_id(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str)


def _terminal_event(frames: bytes) -> Json | None:
    """The last event of a stream, if it is one that ends a response."""
    for frame in reversed(sse.FrameSplitter().feed(frames)):
        event = codec.loads_tolerant(frame.payload)
        if isinstance(event, dict) and event.get("type") in TERMINAL_EVENTS:
            return event
    return None
