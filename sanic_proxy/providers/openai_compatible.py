"""A provider that speaks one or more of the proxy's dialects: bytes in, bytes out. One class, a row each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.model import ProviderSettings, Settings
from sanic_proxy.dialects.base import Dialect
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.registry import DIALECTS
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.observability.trace_context import PARENT, STATE, passed_headers
from sanic_proxy.openai import chunks, codec, model_rewrite, models
from sanic_proxy.openai.usage import recorded_chat
from sanic_proxy.providers.base import (
    Answer,
    Call,
    ChatProvider,
    ChatRequest,
    ProviderKind,
    WholeAnswer,
    protocol,
)
from sanic_proxy.streams import replay
from sanic_proxy.streams.reasoning import ReasoningRenamer
from sanic_proxy.streams.stream import Stream
from sanic_proxy.upstream import answers, error_parser
from sanic_proxy.upstream.client import Endpoint, Response, UpstreamClient, bounded
from sanic_proxy.upstream.error_parser import Rule
from sanic_proxy.upstream.request import Body, Upload
from sanic_proxy.upstream.response_headers import is_header_value, returned_headers

# What every provider gets of a client's headers; a row adds those its vendor understands.
_FORWARDED = ("user-agent", "idempotency-key")
# Bytes that may precede an answer, and the first bytes of JSON. Anything else is treated as an event stream,
# whatever its label: servers call streams JSON, and JSON text/plain, octet-stream or event-stream.
_BLANKS = b"\xef\xbb\xbf \t\r\n"
JSON_BEGINS = (b"{", b"[")
# A deployment's name at Azure.
_DEPLOYMENT = re.compile(r"(?!\.+\Z)[\w.-]{1,256}", re.ASCII)


@protocol("openai")
class GenericProvider(ChatProvider):
    """Requests pass with only the model's value changed, answers with nothing changed."""

    def __init__(self, provider: ProviderSettings, settings: Settings, client: UpstreamClient) -> None:
        super().__init__(provider, settings, client)
        fixed = fixed_headers(provider)
        self._forwarded = frozenset((*_FORWARDED, *provider.forward_headers)).difference(fixed)
        self._own_headers = frozenset(provider.forward_headers)
        self._joins_traces = provider.joins_traces and fixed.keys().isdisjoint((PARENT, STATE))
        self._conversations = {name: Conversations(provider, DIALECTS[name]) for name in provider.dialects}
        models_path = deployed(provider, provider.models_path or "")
        self._models = endpoint(provider, "GET", models_path, {**fixed, **AS_JSON})
        self._endpoint = lru_cache(maxsize=256)(self._build_endpoint)

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "native"

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        body: Body = (request.body,)
        if not request.wire.has_model_in_path:
            body = model_rewrite.replace_model(
                request.body, request.model, request.upstream_model, request.model_span
            )
        conversations = self._conversations[request.wire.name]
        to = conversations.endpoint(request.upstream_model, request.is_streaming)
        request.forget_content()  # the bytes on their way are all that is kept of it
        headers = self._headers_up(request.headers, request.record)
        if conversations.headers:
            headers |= conversations.headers_up(request.headers)
        try:
            response = await self.client.send(to, headers, body, request.total_at, request.collect_s or 0.0)
        except errors.UpstreamAuthFailed as exc:
            raise self._rejected(exc, headers) from exc
        request.record.upstream_headers = response.headers
        return Answer(self, request, response)

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        body = await answer.source.read_all()
        request = answer.request
        usage = request.wire.usage_in(body)
        if usage is not None:
            request.record.usage = usage
        if self.settings.unify_reasoning and request.wire is CHAT:
            body = _with_renamed_reasoning(body)
        headers = headers_back(answer.source.headers)
        return WholeAnswer(body, [("content-type", json_type(answer.source.headers)), *headers])

    @override
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        source = (await self.send_request(request)).source
        try:
            request.answer_headers = headers_back(source.headers)
            begun = await opening_of(source)
            renames = self.settings.unify_reasoning
            if begun.startswith(JSON_BEGINS) and request.wire is CHAT:
                frames = _replayed(await rest_of(source, begun), request, renames=renames)
                source.close()
                return Stream.of_frames([frames], request.record)
        except BaseException:
            source.close()
            raise
        guard = request.wire.guard(include_usage=request.include_usage, unify_reasoning=renames)
        return Stream(source, guard, request.record, begun=begun)

    @override
    async def forward(self, call: Call) -> Response:
        headers = self._headers_up(call.headers, call.record)
        accept = call.headers.get("accept", "*/*")
        headers["accept"] = accept if is_header_value(accept) else "*/*"
        if call.content_type is not None:
            headers["content-type"] = call.content_type
        if call.dialect is not None:
            headers |= self._conversations[call.dialect.name].headers_up(call.headers)
        path = deployed(self.settings, call.path, call.upstream_model)
        to = self._endpoint(call.method, path, None if call.dialect is None else call.dialect.name)
        try:
            if isinstance(call.body, Upload):
                return await self.client.upload(to, call.body, headers=headers)
            response = await self.client.send(
                to, headers=headers, body=call.body, total_at=call.total_at, is_fresh=call.is_once
            )
            call.record.upstream_headers = response.headers
            return response
        except errors.UpstreamAuthFailed as exc:
            raise self._rejected(exc, headers) from exc

    def _rejected(
        self, error: errors.UpstreamAuthFailed, headers: Mapping[str, str]
    ) -> errors.UpstreamAuthFailed:
        """A key that is refused beside a client's own header for it (an organisation, say) may be good."""
        return error.replaced(blames_target=self._own_headers.isdisjoint(headers))

    def _build_endpoint(self, method: str, path: str, dialect: str | None) -> Endpoint:
        if dialect is not None:
            return self._conversations[dialect].beside(method, path)
        fixed = fixed_headers(self.settings)
        fixed.pop("content-type")
        return endpoint(self.settings, method, path, fixed)

    def _headers_up(self, client: Mapping[str, str], record: RequestRecord) -> dict[str, str]:
        headers = (
            {}
            if self._forwarded.isdisjoint(client)
            else {
                name: value
                for name in self._forwarded
                if (value := client.get(name)) is not None and is_header_value(value)
            }
        )
        if self._joins_traces:
            headers |= passed_headers(record.trace, client)
        return headers

    @override
    async def list_models(self) -> list[Json]:
        settings = self.settings
        if settings.models or settings.models_path is None:
            return [{"id": model} for model in settings.models]
        more = self._conversations[self.dialects[0]].headers_up({})
        response = await self.client.send(self._models, headers=more, is_fresh=True)
        try:
            entries = models.model_entries(codec.loads_tolerant(await response.read_all()))
        finally:
            response.close()
        return [{**entry, "id": entry["id"].removeprefix(settings.model_prefix)} for entry in entries]


async def opening_of(source: Response) -> bytes:
    """The first bytes of an answer behind blanks and a BOM; b"" at its end. Blanks are counted, not kept."""
    size = 0
    while piece := await source.read_some():
        size += len(piece)
        if begun := bounded(piece, size).lstrip(_BLANKS):
            return begun
    return b""


async def rest_of(source: Response, begun: bytes) -> bytes:
    """The whole of an answer that has `begun`."""
    rest = await source.read_all()
    return bounded(begun + rest, len(begun) + len(rest))


def _replayed(body: bytes, request: ChatRequest, *, renames: bool) -> bytes:
    """A whole answer to a streaming request, as a stream."""
    completion = answers.checked_completion(body)
    if not replay.is_replayable(completion):
        raise errors.UpstreamBadResponse("The provider's completion has a choice without a message")
    if renames:
        _rename_reasoning(completion)
    request.record.usage = recorded_chat(completion) or request.record.usage
    return replay.stream_of(_head_of(completion, request), completion)


def _with_renamed_reasoning(body: bytes) -> bytes:
    completion = answers.checked_completion(body)
    return codec.dumps(completion) if _rename_reasoning(completion) else body


def _rename_reasoning(completion: JsonMapping) -> bool:
    """Rename the reasoning in each message. False if nothing changed."""
    renamer = ReasoningRenamer()
    messages = [choice.get("message") for choice in completion["choices"] if isinstance(choice, dict)]
    changed = [
        renamer.rename(number, message, is_last=True)
        for number, message in enumerate(messages)
        if isinstance(message, dict)
    ]
    return any(changed)


class Conversations:
    """How one provider is asked in one dialect."""

    __slots__ = ("_dialect", "_fixed", "_of_model", "_settings", "_streamed", "_whole", "headers")

    def __init__(self, provider: ProviderSettings, dialect: Dialect) -> None:
        self._settings = replace(provider, base_url=dialect.base_url(provider.base_url))
        self._dialect = dialect
        self._fixed = fixed = fixed_headers(provider, dialect.key_header)
        self._whole = self._streamed = None
        self._of_model = lru_cache(maxsize=256)(self._built)
        if not dialect.has_model_in_path and not provider.api_version:
            self._whole, self._streamed = (
                self._built("", is_streaming=False),
                self._built("", is_streaming=True),
            )
        # What a client may send of its own, and what is sent where it does not.
        self.headers: Mapping[str, str | None] = {
            name: dialect.headers.get(name)
            for name in (*dialect.forward_headers, *dialect.headers)
            if name not in fixed
        }

    def endpoint(self, model: str, is_streaming: bool) -> Endpoint:
        """Where `model`, by the provider's name for it, is asked for an answer. Raises ModelNotFound."""
        fixed = self._streamed if is_streaming else self._whole
        return fixed or self._of_model(model, is_streaming=is_streaming)

    def beside(self, method: str, path: str) -> Endpoint:
        """Another endpoint of the dialect, for bodies of any type."""
        fixed = {name: value for name, value in self._fixed.items() if name != "content-type"}
        return endpoint(self._settings, method, path, fixed)

    def _built(self, model: str, *, is_streaming: bool) -> Endpoint:
        return endpoint(
            self._settings,
            "POST",
            deployed(self._settings, self._dialect.path_to(model, is_streaming=is_streaming), model),
            {**self._fixed, **(AS_STREAM if is_streaming else AS_JSON)},
            keeps_error_bodies=self._dialect is not CHAT,
        )

    def headers_up(self, client: Mapping[str, str]) -> dict[str, str]:
        """The dialect's headers of a request."""
        headers = {}
        for name, default in self.headers.items():
            value = client.get(name)
            if value is None or not is_header_value(value):
                value = default
            if value is not None:
                headers[name] = value
        return headers


BEARER_HEADER = "authorization"
AS_JSON = {"accept": "application/json"}
AS_STREAM = {"accept": "text/event-stream"}


def endpoint(
    settings: ProviderSettings,
    method: str,
    path: str,
    headers: Mapping[str, str],
    rules: Sequence[Rule] = (),
    *,
    keeps_error_bodies: bool = False,
) -> Endpoint:
    """One of a provider's endpoints, with its clocks and the way to it."""
    return Endpoint(
        method=method,
        url=settings.base_url + path,
        headers=headers,
        timeouts=settings.timeouts,
        proxy=settings.proxy,
        rules=rules,
        keeps_error_bodies=keeps_error_bodies,
    )


def deployed(settings: ProviderSettings, path: str, model: str = "") -> str:
    """`path` as a provider with dated versions has it: below the model's deployment, with the version.

    Raises ModelNotFound for a name that no deployment can have.
    """
    if not settings.api_version:
        return path
    if model and not _DEPLOYMENT.fullmatch(model):
        raise errors.ModelNotFound(f"The model {model[:200]!r} does not exist", param="model")
    deployment = f"/deployments/{model}" if model else ""
    return f"{deployment}{path}{'&' if '?' in path else '?'}api-version={settings.api_version}"


def fixed_headers(settings: ProviderSettings, key_header: str = "") -> dict[str, str]:
    """The headers of every request to one provider: its key, the row's own, and no compression.

    `key_header` holds the key where the provider's own header is the default one.
    """
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if settings.key is not None:
        bare = settings.key.reveal()
        name = settings.key_header
        if key_header and name == BEARER_HEADER:
            name = key_header
        headers[name] = f"Bearer {bare}" if name == BEARER_HEADER else bare
    return {**headers, **dict(settings.headers)}


def headers_back(upstream: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a client gets of a provider's headers: its limits, its timing, its request id."""
    back = returned_headers(upstream)
    if "retry-after" in upstream or "retry-after-ms" in upstream:
        wait_s = error_parser.retry_after_s(upstream)
        if wait_s is not None:
            back.append(("retry-after", str(wait_s)))
    return back


def json_type(headers: Mapping[str, str]) -> str:
    """A provider's content type for JSON; `application/json` where it labels JSON as something else."""
    named = headers.get("content-type", "application/json")
    if named == "application/json":
        return named
    is_json = named.lower().startswith("application/json") and is_header_value(named)
    return named if is_json else "application/json"


def media_type(headers: Mapping[str, str]) -> str:
    """A provider's content-type without its parameters, in lower case; "" where it names none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _head_of(completion: JsonMapping, request: ChatRequest) -> chunks.ChunkHead:
    created = completion.get("created")
    return chunks.ChunkHead(
        id=str(completion.get("id") or chunks.new_completion_id()),
        model=str(completion.get("model") or request.model),
        created=created if isinstance(created, int) else chunks.now(),
        include_usage=request.include_usage,
    )
