"""The middle shape -> a chat request for an OpenAI-shaped target. Pure.

`dropped` names what the request lost, sorted, each name once:

| name | |
|---|---|
| a name of `Conversation.extras` | a field, or kind of tool, of the client's API only |
| `top_k`, `metadata`, `reasoning.display`, `reasoning.mode`, `reasoning.summary` | not in this API |
| a name in `TargetTraits.omitted_fields` | the target does not know that field |
| `stop` | of more than four sequences the first four are sent |
| `output.name` | a name of a schema that is too long or has other characters was changed |
| `tools.cache_control`, `messages.cache_control` | Anthropic's marks |
| `messages.annotations`, `messages.citations`, `messages.phase` | |
| `messages.reasoning` | of another origin than the target, or of an unknown one |
| `messages.refusal` | sent as text |
| `messages.system.position` | a system message was moved to the front |
| `messages.tool_result.call_id` | a result without its call, sent as a message of the user |
| `messages.document.url`, `messages.document.context` | a URL is sent as text |
| `messages.image`, `messages.image.file_id`, `messages.image.detail` | |
| `messages.<type>` | a part of that type, unknown to chats |

The effort of reasoning is sent as `reasoning_effort`. In place of an effort Anthropic's budget of tokens is
taken: less than 4096 is `low`, less than 16384 `medium`, and the rest `high`.
"""

from __future__ import annotations

import re

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.translation.chat import history, tools
from sanic_proxy.translation.conversation import Conversation, OutputFormat, ReasoningOptions
from sanic_proxy.translation.format import TargetTraits, WrittenRequest
from sanic_proxy.translation.tool_names import digest

MAX_STOPS = 4
# OpenAI's limit for `safety_identifier`, which has replaced `user`.
MAX_USER_CHARS = 64
_LOW_BELOW_TOKENS, _MEDIUM_BELOW_TOKENS = 4096, 16384
_MAX_SCHEMA_NAME_CHARS = 64
_DEFAULT_SCHEMA_NAME = "answer"
_NOT_IN_SCHEMA_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def write(conversation: Conversation, target: TargetTraits) -> WrittenRequest:
    """The request. Raises InvalidRequest where more than one answer is wanted, or tools cannot be named."""
    if "n" in conversation.extras:
        raise InvalidRequest("This model gives one answer at a time: `n` must be 1", param="n")
    dropped = set(conversation.extras)
    functions, originals = tools.written_tools(conversation.tools)
    allowed = tools.allowed(conversation.tools, conversation.tool_choice)
    if any(tool.cache_control is not None for tool in conversation.tools):
        dropped.add("tools.cache_control")
    fields: Json = {
        "model": target.model,
        "messages": history.messages(conversation.turns, target, dropped),
        **_options(conversation, target, dropped),
    }
    if allowed:
        fields["tools"] = [function for name, function in functions.items() if name in allowed]
        if conversation.tool_choice is not None:
            fields["tool_choice"] = tools.written_choice(conversation.tools, conversation.tool_choice)
        # OpenAI refuses it in a request without tools.
        fields["parallel_tool_calls"] = conversation.parallel_tool_calls
    sent = {name: value for name, value in fields.items() if value is not None}
    refused = target.omitted_fields & sent.keys()
    return WrittenRequest(
        {name: value for name, value in sent.items() if name not in refused},
        sorted(dropped | refused),
        originals,
    )


def _options(conversation: Conversation, target: TargetTraits, dropped: set[str]) -> Json:
    """The fields beside messages and tools; None for fields that are not set."""
    if conversation.top_k is not None:
        dropped.add("top_k")
    if conversation.metadata:
        # Labels for the vendor's store of completions, which OpenAI takes with `store` only.
        dropped.add("metadata")
    if len(conversation.stop) > MAX_STOPS:
        dropped.add("stop")
    options: Json = {
        target.limit_field: conversation.max_tokens,
        "temperature": conversation.temperature,
        "top_p": conversation.top_p,
        "stop": conversation.stop[:MAX_STOPS] or None,
        "seed": conversation.seed,
        "presence_penalty": conversation.presence_penalty,
        "frequency_penalty": conversation.frequency_penalty,
        "reasoning_effort": _effort(conversation.reasoning, dropped),
        "response_format": _response_format(conversation.output, dropped),
        "verbosity": conversation.verbosity,
        "user": _user(conversation.user),
        "service_tier": conversation.service_tier,
        "prompt_cache_key": conversation.prompt_cache_key,
    }
    if conversation.top_logprobs is not None:
        options |= {"logprobs": True, "top_logprobs": conversation.top_logprobs}
    if conversation.is_streaming:
        options["stream"] = True
        if target.stream_usage:
            options["stream_options"] = {"include_usage": True}
    return options


def _effort(options: ReasoningOptions | None, dropped: set[str]) -> str | None:
    if options is None:
        return None
    if options.summary is not None:
        dropped.add("reasoning.summary")
    if options.display is not None:
        dropped.add("reasoning.display")
    if options.effort is not None:
        return options.effort
    if options.mode == "disabled":
        # `none` is an error for most models that can think, and for all that cannot.
        dropped.add("reasoning.mode")
        return None
    return None if options.budget_tokens is None else effort_of(options.budget_tokens)


def effort_of(budget_tokens: int) -> str:
    """The effort in place of a budget: see the module."""
    if budget_tokens < _LOW_BELOW_TOKENS:
        return "low"
    return "medium" if budget_tokens < _MEDIUM_BELOW_TOKENS else "high"


def _user(user: str | None) -> str | None:
    """An end user's id, or a hash of one that is too long: Claude Code's is a JSON object."""
    return digest(user, 64) if user is not None and len(user) > MAX_USER_CHARS else user


def _response_format(output: OutputFormat | None, dropped: set[str]) -> Json | None:
    if output is None or output.type == "text":
        return None
    if output.type == "json_object":
        return {"type": "json_object"}
    name = _NOT_IN_SCHEMA_NAME.sub("_", output.name or "")[:_MAX_SCHEMA_NAME_CHARS]
    if output.name and name != output.name:
        dropped.add("output.name")
    schema: Json = {
        "name": name or _DEFAULT_SCHEMA_NAME,
        "description": output.description,
        "schema": output.schema,
        "strict": output.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in schema.items() if value is not None},
    }
