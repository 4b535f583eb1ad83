"""Where a stream goes on that has failed after its client has seen a part of it.

With `on_cut = "continue"` the next target is asked to continue the text, if it can. One that cannot, or that
rejects such a request, gets the client's request once more, as every target does with `"restart"`; its text
is compared with what was sent (`streams.seam`). All of these are attempts of the one request: they count
against its limits, its time and the retry budgets, and are in its record. Where none succeeds the client
gets the first failure.
"""

from __future__ import annotations

from sanic_proxy.config.saving import OnCut, continuation
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.errors import InvalidRequest, ProxyError, UpstreamRefusedRequest
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routing.adaption import replace_fields
from sanic_proxy.routing.continuation import continuing, may_be_saved
from sanic_proxy.routing.opening import aimed, begun
from sanic_proxy.routing.policy import special_cause
from sanic_proxy.routing.retry_loop import before, first_good, is_time_left, pause
from sanic_proxy.routing.targets import RetryState, Target
from sanic_proxy.streams.saved import SavedStream
from sanic_proxy.streams.seam import Seam, SentText
from sanic_proxy.streams.stream import Stream


class Resumer:
    """Finds the next source for the stream of one request. Keeps the client's request for as long."""

    def __init__(
        self,
        on_cut: OnCut,
        retry_state: RetryState[ChatProvider],
        request: ChatRequest,
    ) -> None:
        self._on_cut = on_cut
        self._retry_state = retry_state
        self._request = request
        self._is_chat = request.dialect is CHAT
        self._may_save = not self._is_chat or may_be_saved(request.fields)
        self._refusing: set[str] = set()  # targets that have rejected a request to continue

    def may_save(self, request: ChatRequest) -> bool:
        """Whether the stream of the request, as an attempt sends it, could go on elsewhere."""
        if self._is_chat:
            return self._may_save
        return request.wire is CHAT and may_be_saved(request.fields)

    def saved(self, stream: Stream) -> Stream:
        """A stream that has not begun, as one that goes on when it fails."""
        return SavedStream(stream, self._resume)

    async def _resume(self, error: ProxyError, sent: SentText) -> Stream | None:
        retry_state, request = self._retry_state, self._request
        if not sent.can_go_on:
            retry_state.record_stream_failure(error)
            return None
        wait_s = retry_state.record_cut(error, len(sent.text), sent.reported)
        if wait_s is None or not is_time_left(request, wait_s):
            return None
        try:
            if wait_s:
                await pause(request, wait_s)
            return await first_good(retry_state, request, lambda target: self._ask(target, sent))
        except ProxyError:
            return None

    async def _ask(self, target: Target[ChatProvider], sent: SentText) -> Stream:
        if self._may_continue(target):
            await aimed(self._request, target)
            if self._is_continued(target, sent):
                limit_s = self._retry_state.first_content_s
                try:
                    return await before(self._begun(target, sent, continues=True), content_s=limit_s)
                except UpstreamRefusedRequest as exc:
                    if special_cause(exc):
                        raise
                    self._refusing.add(target.label)
                    if not self._retry_state.record_refusal(exc):
                        raise
        # The limit for the first content does not suit a text whose beginning is known: it may be long.
        return await self._begun(target, sent, continues=False)

    def _may_continue(self, target: Target[ChatProvider]) -> bool:
        return self._on_cut == "continue" and target.label not in self._refusing

    def _is_continued(self, target: Target[ChatProvider], sent: SentText) -> bool:
        """Make the request one for the rest of the answer, where that is possible."""
        request = self._request
        if request.wire is not CHAT:
            return False
        how = continuation(target.continues, target.provider.settings.continues)
        fields = continuing(request.fields, sent.text, how, tokens=sent.frames)
        if fields is not None:
            replace_fields(request, fields)
        return fields is not None

    async def _begun(self, target: Target[ChatProvider], sent: SentText, *, continues: bool) -> Stream:
        request = self._request
        translation = None
        if not continues:
            translation = await aimed(request, target)
        if not self._is_chat and request.wire is not CHAT:
            raise InvalidRequest("The next target speaks another API than the one whose stream broke off")

        def joined(stream: Stream) -> Stream:
            stream.add_filter(Seam(sent, continues=continues))
            return stream

        return await begun(target, request, translation if self._is_chat else None, joined)
