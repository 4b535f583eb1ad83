"""A client's request -> the one that a target gets: its dialect, its name for the model, its options. Pure.

A target that speaks the client's dialect and has no options gets the client's bytes. For any other one the
request is translated, and its answer is translated back.
"""

from __future__ import annotations

from dataclasses import replace

from sanic_proxy.config.model import NO_OPTIONS, RequestOptions
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.registry import DIALECTS
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routing.targets import Target
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.translate import Translation, translated


def aim(request: ChatRequest, target: Target[ChatProvider]) -> Translation | None:
    """Make `request` one to `target`. Returns the translator of its answer; None if none is needed.

    What another target has changed, or a provider has released, is there again. Raises InvalidRequest for a
    request that cannot be translated.
    """
    provider = target.provider
    request.provider = provider
    request.record.provider = provider.name
    request.upstream_model = target.upstream_model
    request.answer_headers = request.dropped = ()
    request.is_strict = target.options.is_strict
    if request.body is not request.original:
        request.body, request.model_span = request.original, request.original_span
        request.fields = codec.loads_strict(request.original)
    request.wire = request.dialect
    is_collected = request.collect_s is not None
    request.is_streaming = request.is_for_stream or is_collected
    if request.dialect.name in provider.dialects:
        if is_collected or target.options is not NO_OPTIONS or request.dialect is not CHAT:
            _prepare(request, target)
        return None
    request.wire = DIALECTS[provider.dialects[0]]
    return _translate(request, target)


def _prepare(request: ChatRequest, target: Target[ChatProvider]) -> None:
    """Change what a target of the client's own dialect must not get, or gets besides; mostly nothing."""
    provider, options = target.provider, target.options
    changed: JsonMapping | None = None
    if (prepared := request.wire.prepared(request.body, request.fields, provider.name)) is not None:
        changed = prepared.fields
        request.drop(prepared.dropped)
    if options.changes_requests:
        changed = with_options(request.fields if changed is None else changed, options)
    if request.collect_s is not None:
        fields = request.fields if changed is None else changed
        request.is_streaming = provider.provider_kind == "native" and request.wire.may_collect(fields)
        if request.is_streaming:
            changed = request.wire.as_stream(fields, with_usage=provider.settings.stream_usage)
            request.include_usage = True
    if changed is not None:
        replace_fields(request, changed)


def _translate(request: ChatRequest, target: Target[ChatProvider]) -> Translation:
    provider, options = target.provider, target.options
    settings = provider.settings
    if request.collect_s is not None and provider.provider_kind != "native":
        request.is_streaming = False  # it has the whole answer at once
    traits = TargetTraits(
        provider.name,
        request.model,
        stream_usage=settings.stream_usage,
        hoists_system=settings.hoists_system,
        thinking=options.thinking or "adaptive",
        takes_sampling=bool(options.sampling),
    )
    if settings.has_openai_fields:
        traits = replace(traits, limit_field="max_completion_tokens", omitted_fields=frozenset())
    fields = {**request.fields, "model": request.model, "stream": request.is_streaming}
    if request.hides_usage:  # the proxy has requested it for itself; a translated stream reports it anyway
        asked = {**fields["stream_options"]}
        del asked["include_usage"]
        fields["stream_options"] = asked or None
    try:
        translation = translated(
            request.dialect.format, fields, request.wire.format, traits, request.repeated
        )
    except RecursionError:
        raise InvalidRequest("The request is nested too deeply to be translated for its provider") from None
    # What an answer repeats besides is what the proxy does by itself.
    request.drop([name for name in translation.dropped if name not in (request.repeated or ())])
    replace_fields(request, with_options(translation.fields, options))
    return translation


def replace_fields(request: ChatRequest, fields: JsonMapping) -> None:
    """Make `fields` those of a request, in its wire's format."""
    try:
        request.body = codec.dumps(fields)
    except (RecursionError, OverflowError):
        raise InvalidRequest("The request is nested too deeply to be changed for its provider") from None
    request.fields = fields
    request.model_span = None


def with_options(fields: JsonMapping, options: RequestOptions) -> Json:
    """`fields` of a request as the options of its target change them."""
    changed = {**options.default_params, **fields, **options.set_params}
    for name in options.remove_params:
        changed.pop(name, None)
    return changed
