"""Whole answers with a good status: whether they are what was asked for, or a failure in disguise. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import choices as choice_rules
from sanic_proxy.openai import codec
from sanic_proxy.upstream import error_parser


def checked(body: bytes) -> Any:
    """The JSON of an answer. Raises UpstreamBadResponse if it is not JSON, and the error that it reports.

    A resource (a batch, a file) may have fields named `error`, `errors` or `status` of its own: it is told
    from an error by its `id` and `object`.
    """
    parsed = _parsed(body)
    if not _is_resource(parsed) and error_parser.is_error(parsed):
        raise error_parser.error_in_band(parsed)
    return parsed


def checked_completion(body: bytes) -> Json:
    """The completion in an answer.

    Raises UpstreamBadResponse if it is invalid or has no content, and the error that it reports: in an error
    object, or as the finish reason `error`. A choice with content and without a finish reason is an answer.
    """
    try:
        # Nearly every answer: one choice, with a finish reason that OpenAI documents.
        plain: Json = orjson.loads(body)
        (choice,) = plain["choices"]
        if choice["finish_reason"] in _FINISH_REASONS and "error" not in plain:
            return plain
    except (KeyError, TypeError, ValueError):
        pass  # it is judged once more, with care
    parsed = _parsed(body)
    choices = parsed.get("choices") if isinstance(parsed, dict) else None
    has_choices = bool(choices) and isinstance(choices, list)
    if bool(parsed.get("error")) if has_choices else error_parser.is_error(parsed):
        raise error_parser.error_in_band(parsed)
    if not isinstance(parsed, dict) or not ("choices" in parsed and isinstance(choices, list | None)):
        raise errors.UpstreamBadResponse("The provider's answer is not a completion")
    made = [choice for choice in choices or () if isinstance(choice, dict)]
    for choice in made:
        if choice_rules.finish_reason_of(choice.get("finish_reason")) == choice_rules.FAILED:
            raise failed_choice(choice)
    if not any(map(choice_rules.has_content, made)):
        raise empty_answer()
    return parsed


def checked_message(body: bytes) -> Json:
    """The message in an answer of Anthropic's Messages API.

    Raises UpstreamBadResponse if it is invalid or has neither content nor a stop reason, and the error that
    it reports.
    """
    parsed = _parsed(body)
    if isinstance(parsed, dict) and isinstance(parsed.get("content"), list):
        if not parsed["content"] and not parsed.get("stop_reason"):
            raise empty_answer()
        return parsed
    if error_parser.is_error(parsed):
        raise error_parser.error_in_band(parsed)
    raise errors.UpstreamBadResponse("The provider's answer is not a message")


# The finish reasons that OpenAI documents, https://platform.openai.com/docs/api-reference/chat/object.
_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


def _parsed(body: bytes) -> Any:
    try:
        return codec.loads_exact(body)
    except ValueError:
        if (error := error_parser.error_in_line(body)) is not None:
            raise error from None
        raise errors.UpstreamBadResponse("The provider's answer is not valid JSON") from None


def empty_answer() -> errors.UpstreamBadResponse:
    """The error for an answer without content and finish reason."""
    return errors.UpstreamBadResponse(
        "The provider's answer is empty: it has neither content nor a finish reason",
        code="upstream_empty_response",
    )


def failed_choice(choice: JsonMapping) -> errors.ProxyError:
    """The error for a choice whose finish reason is `error`. OpenRouter says what failed beside it."""
    if choice.get("error"):
        return error_parser.error_in_band({"error": choice["error"]})
    text = "The model failed in the middle of its answer"
    return errors.UpstreamError(text, upstream_status=errors.UpstreamError.status)


def _is_resource(parsed: object) -> bool:
    return (
        isinstance(parsed, dict)
        and isinstance(parsed.get("id"), str)
        and isinstance(parsed.get("object"), str)
        and parsed["object"] != "error"
    )
