"""Background responses: the client gets the id at once, and asks for the response until it is finished.

A provider that speaks Responses runs them itself. For any other one the worker that got the request does, and
all workers see its state in the store.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from dataclasses import replace

from sanic_proxy import errors
from sanic_proxy.dialects.base import Dialect, ParsedRequest
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.in_flight import overloaded
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.openai.responses import error_of
from sanic_proxy.providers.base import ChatRequest
from sanic_proxy.routes import chat as chats
from sanic_proxy.routes.charging import charge_chat
from sanic_proxy.routes.response_following import follow
from sanic_proxy.routes.response_keeping import ResponseKeeper, reading
from sanic_proxy.routing import attempts
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.state import AppState
from sanic_proxy.state_store.background import BackgroundTask
from sanic_proxy.state_store.base import StoreError
from sanic_proxy.state_store.responses import MAX_ITEM_BYTES, ResponseStore, ResponseTooLarge
from sanic_proxy.translation.responses.stored import queued, without_lone_surrogates

logger = logging.getLogger(__name__)

JSON_LINES = header_lines([("content-type", "application/json")])


async def answer(
    request: ProxyRequest, dialect: Dialect, asked: ParsedRequest, keeper: ResponseKeeper | None
) -> Reply | None:
    """Answer a request with `background: true`: with the queued response or, with `stream`, its events."""
    state: AppState = request.state
    targets, _ = chats.conversation(request, request.record, state, dialect, asked, keeper)
    if dialect.name in targets[0].provider.dialects or state.responses is None:
        if keeper is not None:
            keeper.is_for_native = True
        return await chats.answer_to(request, dialect, asked, keeper)
    if keeper is None or not keeper.repeated["store"]:
        raise InvalidRequest("A background response must be stored: leave out `store`", param="store")
    if state.settings.background_responses == 0:
        raise InvalidRequest("Background responses are off in this proxy", param="background")
    background = state.background
    if background is None or background.is_full or state.traffic.is_draining:
        raise overloaded()
    keeper.repeated["background"] = True
    keeper.is_for_native = False
    is_followed = asked.is_streaming
    fields = {
        name: value
        for name, value in asked.fields.items()
        if name not in {"background", "stream", "stream_options"}
    }
    asked = replace(asked, body=codec.dumps(fields), fields=fields, is_streaming=False, model_span=None)
    asked.collect_s = state.settings.background_timeout_s
    repeated = {**dialect.format.read_request(fields).repeated, **keeper.repeated}
    response = queued(keeper.id, asked.model, repeated)
    record = request.record.caused(secrets.token_hex(16), "BACKGROUND")
    targets, chat = chats.conversation(request, record, state, dialect, asked, keeper)
    if state.governor is not None:
        await charge_chat(state.governor, chat, targets, request.path)
    await _queue(state.responses, keeper, response, record)
    if state.captures is not None:
        state.captures.begin(request.fields, record, asked.body)
    run = _Run(state, state.responses, keeper, response, targets, chat)
    background.start(keeper.id, run)
    if is_followed:
        await follow(request, dialect, state.responses, keeper.id)
        return None
    return Reply(JSON_LINES, codec.dumps(response))


async def _queue(
    store: ResponseStore, keeper: ResponseKeeper, response: JsonMapping, record: RequestRecord
) -> None:
    """Store a response that has yet to be made. Raises ProxyError."""
    try:
        await reading(store.add(keeper.queued(response, store.worker)))
    except BaseException as exc:
        record.ended = "not_stored"
        record.finish(())
        if isinstance(exc, ResponseTooLarge):
            problem = "The request is too large to be stored, as a background response is"
            raise InvalidRequest(problem) from None
        raise


class _Run:
    """One background response from its queue to its end."""

    def __init__(
        self,
        state: AppState,
        store: ResponseStore,
        keeper: ResponseKeeper,
        response: JsonMapping,
        targets: attempts.Targets,
        chat: ChatRequest,
    ) -> None:
        self._state = state
        self._store = store
        self._keeper = keeper
        self._response = response
        self._targets = targets
        self._chat = chat

    async def __call__(self, task: BackgroundTask) -> None:
        """Make the response. However this ends, the response does not stay unfinished."""
        record = self._chat.record
        error: ProxyError | None = errors.ProxyError("The proxy failed; its log has the details")
        try:
            await self._advance("in_progress", {**self._response, "status": "in_progress"})
            body = without_lone_surrogates(await self._whole())
            if record.capture is not None:
                record.capture.add_whole(body)
            await self._advance(str(codec.loads_tolerant(body).get("status")), body)
            record.status, record.ended = 200, "complete"
            error = None
        except ProxyError as exc:
            error = exc
        except asyncio.CancelledError:
            error = task.cut_by  # else its client has ended it, which the store knows
            record.status, record.ended = 499, "cancelled"
            raise
        finally:
            try:
                if error is not None:
                    record.status, record.ended = error.status, error.code or error.type
                    await self._fail(error)
            finally:
                record.finish(self._state.observers)

    async def _fail(self, error: ProxyError) -> None:
        """Store that the response has failed, if the store can."""
        failure = error_of(error.redacted(self._state.secrets))
        with suppress(ProxyError):  # has been logged
            await self._advance("failed", {**self._response, "status": "failed", "error": failure})

    async def _whole(self) -> bytes:
        limit_s = self._state.settings.background_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return (await attempts.whole(self._targets, self._state.limits, self._chat)).body
        except TimeoutError:
            raise errors.UpstreamTimeout(f"The response was not complete within {limit_s:g} s") from None

    async def _advance(self, status: str, response: JsonMapping | bytes) -> None:
        """Store another status of the response. Raises StoreFailed, or ProxyError if it is too large."""
        body = response if isinstance(response, bytes) else codec.dumps(response)
        try:
            await self._store.advance(self._keeper.owner, self._keeper.id, status, body)
        except ResponseTooLarge:
            raise errors.ProxyError(
                f"The response and its input are larger than {MAX_ITEM_BYTES // 2**20} MiB: "
                "such a response cannot be made in the background"
            ) from None
        except StoreError as exc:
            logger.error("a background response could not be stored: %s", exc)  # noqa: TRY400 - no bug of ours
            raise errors.StoreFailed("The response could not be stored") from None
