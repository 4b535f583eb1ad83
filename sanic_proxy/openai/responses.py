"""Shapes of OpenAI's Responses API that streams and translations share. Pure.

Sources: `openai` 3.57.0 (generated from OpenAI's specification) and `openresponses-types` 2.4.0. The latter
requires every key of a response, with null or a default; OpenAI's own answers have them as well.
"""

from __future__ import annotations

import math
import re
import secrets

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.usage import Usage, recorded, whole

# After one of these events nothing follows.
TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})

_DEFAULTS: JsonMapping = {
    "background": False,
    "completed_at": None,
    "error": None,
    "frequency_penalty": 0.0,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "output": [],
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
}


def response_object(id_: str, model: str, created_at: int, repeated: JsonMapping) -> Json:
    """A response in progress, with all keys. `repeated`: the request's fields that it repeats."""
    head = {"id": id_, "object": "response", "created_at": created_at, "status": "in_progress"}
    return {**head, "model": model, **_DEFAULTS, **repeated}


def new_response_id() -> str:
    return f"resp_{secrets.token_hex(24)}"


def event_frame(event: JsonMapping) -> bytes:
    """One event with its `event:` line, which repeats the type as OpenAI's streams do."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), codec.dumps(event))


def failed_frames(response: JsonMapping, sequence: int, error: errors.ProxyError) -> bytes:
    """The frames that end a stream which failed.

    `response` is the response as the stream has it, in progress; `sequence` the number of the next event. A
    stream that has sent nothing (0) gets its `response.created` as well, which clients need as the first.
    """
    frames = b""
    if sequence == 0:
        frames = event_frame({"type": "response.created", "sequence_number": 0, "response": response})
        sequence = 1
    failed = {**response, "status": "failed", "error": error_of(error)}
    return frames + event_frame({"type": "response.failed", "sequence_number": sequence, "response": failed})


# Codex 0.171 stops at once at the first three codes, waits as the text says at `rate_limit_exceeded`, and
# repeats the request at any other one. The first class that fits decides.
_CODES: tuple[tuple[type[errors.ProxyError], str], ...] = (
    (errors.InsufficientQuota, "insufficient_quota"),
    (errors.RateLimited, "rate_limit_exceeded"),
    (errors.ContextLengthExceeded, "context_length_exceeded"),
    (errors.ClientError, "invalid_prompt"),
)
_HAS_WAIT = re.compile(r"try again in \d", re.IGNORECASE)


def error_of(error: errors.ProxyError) -> Json:
    """The `error` of a failed response.

    Clients read the time to wait from the text of a rate limit, so it is added where the text has none.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "server_error")
    message = error.message
    wait_s = error.wait_s if error.wait_s is not None else error.retry_after_s
    if code == "rate_limit_exceeded" and wait_s is not None and not _HAS_WAIT.search(message):
        # Rounded up to a tenth: whoever comes back too early is refused again.
        message = f"{message.rstrip('. ')}. Please try again in {math.ceil(wait_s * 10) / 10:g}s."
    return {"code": code, "message": message}


_MEDIA_TOKENS = frozenset({"audio_tokens", "image_tokens"})


def read_usage(usage: JsonMapping) -> Usage:
    """The `usage` of a response. Fields that are no numbers count as 0."""
    given = _mapping(usage.get("input_tokens_details"))
    made = _mapping(usage.get("output_tokens_details"))
    counted = Usage(
        whole(usage.get("input_tokens")),
        whole(usage.get("output_tokens")),
        whole(given.get("cached_tokens")),
        whole(given.get("cache_write_tokens")),
        whole(made.get("reasoning_tokens")),
    )
    if _MEDIA_TOKENS.isdisjoint(given) and _MEDIA_TOKENS.isdisjoint(made):
        return counted
    return counted._replace(
        audio_input=whole(given.get("audio_tokens")),
        image_input=whole(given.get("image_tokens")),
        audio_output=whole(made.get("audio_tokens")),
        image_output=whole(made.get("image_tokens")),
    )


_BILLED_CALLS = ("web_search_call", "file_search_call", "code_interpreter_call")


def recorded_usage(response: JsonMapping) -> Json | None:
    """The usage of a response as records keep it, with its tier and the calls of OpenAI's own tools.

    Of web searches only the action `search` is billed; code runs in containers, which are billed each.
    https://platform.openai.com/docs/pricing
    """
    if not isinstance(usage := response.get("usage"), dict):
        return None
    output = response.get("output")
    called = [
        item
        for item in (output if isinstance(output, list) else ())
        if isinstance(item, dict) and item.get("type") in _BILLED_CALLS
    ]
    return recorded(
        read_usage(usage),
        usage,
        service_tier=response.get("service_tier"),
        server_tools=_billed(called) if called else None,
    )


def _billed(called: list[Json]) -> dict[str, int]:
    """How often each of OpenAI's own tools is billed for these calls."""
    kinds = [item["type"] for item in called]
    searches = [_mapping(item.get("action")) for item in called if item["type"] == "web_search_call"]
    containers = {str(item.get("container_id")) for item in called if item["type"] == "code_interpreter_call"}
    return {
        "web_search_requests": sum(action.get("type", "search") == "search" for action in searches),
        "file_search_requests": kinds.count("file_search_call"),
        "code_interpreter_sessions": len(containers),
    }


def write_usage(usage: Usage) -> Json:
    """`usage` as a response has it. Codex rejects a response without one of its three sums."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _mapping(value: object) -> JsonMapping:
    return value if isinstance(value, dict) else {}
