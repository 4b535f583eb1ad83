"""A client's Messages request -> a conversation. Pure.

What the translation relies on is checked, and reported by its path as `messages.0.content`. Everything else
is an open list, as clients send fields and blocks of betas: it goes to `extras` or `Other`, and never fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Conversation,
    Document,
    Image,
    Other,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningOptions,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.messages import values

T = TypeVar("T")

_KNOWN = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
_TOOL_FIELDS = frozenset({"name", "description", "input_schema", "strict", "type", "cache_control"})
_RESULT_BLOCKS = frozenset({"text", "image", "document"})
_SERVICE_TIERS = {"auto": "auto", "standard_only": "default"}


def read(fields: JsonMapping) -> Conversation:
    """See `Format.read_request`."""
    conversation = Conversation(
        model=_required(fields, "model", str, ""),
        turns=[],
        is_streaming=_optional(fields, "stream", bool, "") or False,
        max_tokens=_max_tokens(fields),
        temperature=_number(fields, "temperature"),
        top_p=_number(fields, "top_p"),
        top_k=_optional(fields, "top_k", int, ""),
        stop=_texts(fields, "stop_sequences"),
        extras={name: value for name, value in fields.items() if name not in _KNOWN and value is not None},
    )
    _read_system(fields, conversation)
    _read_messages(fields, conversation)
    _read_tools(fields, conversation)
    _read_tool_choice(fields, conversation)
    _read_reasoning(fields, conversation)
    _read_output(fields, conversation)
    _read_metadata(fields, conversation)
    return conversation


# Fields. `path` is that of the object that holds the field, with its dot; "" for the request itself.

_TYPE_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    dict: "an object",
    list: "a list",
}


def _required(fields: JsonMapping, name: str, kind: type[T], path: str) -> T:
    value = _optional(fields, name, kind, path)
    if value is None:
        raise _invalid(path + name, "is missing")
    return value


def _optional(fields: JsonMapping, name: str, kind: type[T], path: str) -> T | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _invalid(path + name, f"must be {_TYPE_NAMES[kind]}")
    return value


def _invalid(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"The parameter `{path}` {problem}", param=path)


def _number(fields: JsonMapping, name: str) -> float | None:
    value = fields.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _invalid(name, "must be a number")


def _max_tokens(fields: JsonMapping) -> int:
    limit = _required(fields, "max_tokens", int, "")
    if limit < 1:
        raise _invalid("max_tokens", "must be at least 1")
    return limit


def _texts(fields: JsonMapping, name: str) -> list[str]:
    texts: list[Any] = _optional(fields, name, list, "") or []
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise _invalid(f"{name}.{at}", "must be a string")
    return texts


def _objects(value: list[Any], path: str) -> Iterator[tuple[str, Json]]:
    """The objects in a list, each with its path and a dot."""
    for at, item in enumerate(value):
        if not isinstance(item, dict):
            raise _invalid(f"{path}.{at}", "must be an object")
        yield f"{path}.{at}.", item


def _cache_control(block: Json) -> Json | None:
    mark = block.get("cache_control")
    return mark if isinstance(mark, dict) else None


# Messages


def _read_system(fields: JsonMapping, conversation: Conversation) -> None:
    if fields.get("system") is not None and (parts := _content(fields, "system", "")):
        conversation.turns.append(Turn("system", parts))


def _read_messages(fields: JsonMapping, conversation: Conversation) -> None:
    messages: list[Any] = _required(fields, "messages", list, "")
    if not messages:
        raise _invalid("messages", "must have at least one message")
    for path, message in _objects(messages, "messages"):
        role = _required(message, "role", str, path)
        match role:
            case "user":
                conversation.turns += _user_turns(_content(message, "content", path))
            case "assistant":
                conversation.turns.append(Turn(role, _content(message, "content", path)))
            case "system":
                _read_system_message(message, path, conversation)
            case _:
                raise _invalid(f"{path}role", "must be `user`, `assistant` or `system`")


def _user_turns(parts: list[Part]) -> Iterator[Turn]:
    """The results of tools first, as Anthropic demands them; then the user's own words."""
    if results := [part for part in parts if isinstance(part, ToolResult)]:
        yield Turn("tool", list(results))
    own: list[Part] = [part for part in parts if not isinstance(part, ToolResult)]
    if own:
        yield Turn("user", own)


def _read_system_message(message: Json, path: str, conversation: Conversation) -> None:
    """A system message in the middle. It may hold nothing but an `output_config`, for the next answer."""
    extras = {name: value for name, value in message.items() if name not in {"role", "content"} and value}
    conversation.extras.update({f"messages.{name}": value for name, value in extras.items()})
    if "content" in message or not extras:
        parts = _content(message, "content", path)
        conversation.turns.append(Turn("system", parts, extras=extras))


def _content(fields: JsonMapping, name: str, path: str, kinds: frozenset[str] | None = None) -> list[Part]:
    """The parts of a message, system prompt or tool result: a string or a list of blocks.

    Blocks of other kinds than `kinds` are kept as they are: results do not nest.
    """
    match fields.get(name):
        case str() as text:
            return [Text(text)] if text else []
        case list() as blocks:
            read = (_part(block, at, kinds) for at, block in _objects(blocks, path + name))
            return [part for part in read if not (isinstance(part, Text) and not part.text)]
        case None:
            raise _invalid(path + name, "is missing")
        case _:
            raise _invalid(path + name, "must be a string or a list of content blocks")


def _part(block: Json, path: str, kinds: frozenset[str] | None) -> Part:
    kind = _required(block, "type", str, path)
    if kinds is not None and kind not in kinds:
        return Other(kind, block)
    match kind:
        case "text":
            citations = _optional(block, "citations", list, path)
            text = _required(block, "text", str, path)
            return Text(text, cache_control=_cache_control(block), citations=citations or None)
        case "thinking" | "redacted_thinking":
            return _thinking(block, path, is_redacted=kind == "redacted_thinking")
        case "tool_use":
            return ToolCall(
                id=_required(block, "id", str, path),
                name=_required(block, "name", str, path),
                arguments=values.arguments_of(_required(block, "input", dict, path)),
                cache_control=_cache_control(block),
            )
        case "tool_result":
            return _tool_result(block, path)
        case "image":
            return _image(block, path)
        case "document":
            return _document(block, path)
        case _:
            return Other(kind, block)


def _thinking(block: Json, path: str, *, is_redacted: bool) -> Reasoning:
    if is_redacted:
        origin, value = signatures.origin_and_value(_required(block, "data", str, path), values.API)
        return Reasoning(signature=value, origin=origin, is_redacted=True)
    text = _optional(block, "thinking", str, path) or ""
    origin, value = signatures.origin_and_value(_optional(block, "signature", str, path) or "", values.API)
    return Reasoning(text, signature=value, origin=origin)


def _tool_result(block: Json, path: str) -> ToolResult:
    has_content = block.get("content") is not None
    return ToolResult(
        call_id=_required(block, "tool_use_id", str, path),
        content=_content(block, "content", path, _RESULT_BLOCKS) if has_content else [],
        is_error=_optional(block, "is_error", bool, path) or False,
        cache_control=_cache_control(block),
    )


def _source(block: Json, path: str) -> tuple[str, Json, str]:
    source = _required(block, "source", dict, path)
    return _required(source, "type", str, f"{path}source."), source, f"{path}source."


def _data_url(source: Json, path: str) -> str:
    media_type = _required(source, "media_type", str, path)
    return f"data:{media_type};base64,{_required(source, 'data', str, path)}"


def _image(block: Json, path: str) -> Part:
    kind, source, at = _source(block, path)
    mark = _cache_control(block)
    match kind:
        case "base64":
            return Image(url=_data_url(source, at), cache_control=mark)
        case "url":
            return Image(url=_required(source, "url", str, at), cache_control=mark)
        case "file":
            return Image(file_id=_required(source, "file_id", str, at), cache_control=mark)
        case _:
            return Other("image", block)


def _document(block: Json, path: str) -> Part:
    kind, source, at = _source(block, path)
    document = Document(
        name=_optional(block, "title", str, path),
        context=_optional(block, "context", str, path),
        citations=_optional(block, "citations", dict, path),
        cache_control=_cache_control(block),
    )
    match kind:
        case "base64":
            document.url = _data_url(source, at)
        case "url":
            document.url = _required(source, "url", str, at)
        case "text":
            document.text = _required(source, "data", str, at)
        case "file":
            document.file_id = _required(source, "file_id", str, at)
        case _:
            return Other("document", block)
    return document


# Tools


def _read_tools(fields: JsonMapping, conversation: Conversation) -> None:
    for path, tool in _objects(_optional(fields, "tools", list, "") or [], "tools"):
        kind = _optional(tool, "type", str, path) or "custom"
        if kind == "custom":
            conversation.tools.append(_tool(tool, path, conversation))
        else:  # a server's tool, or one whose schema Anthropic knows
            conversation.extras.setdefault(f"tools.{kind}", []).append(tool)


def _tool(tool: Json, path: str, conversation: Conversation) -> Tool:
    extras = {name: value for name, value in tool.items() if name not in _TOOL_FIELDS and value is not None}
    conversation.extras.update({f"tools.{name}": value for name, value in extras.items()})
    return Tool(
        name=_required(tool, "name", str, path),
        description=_optional(tool, "description", str, path),
        parameters=_required(tool, "input_schema", dict, path),
        strict=_optional(tool, "strict", bool, path),
        cache_control=_cache_control(tool),
        extras=extras,
    )


def _read_tool_choice(fields: JsonMapping, conversation: Conversation) -> None:
    choice = _optional(fields, "tool_choice", dict, "")
    if choice is None:
        return
    match _required(choice, "type", str, "tool_choice."):
        case "auto":
            conversation.tool_choice = ToolChoice("auto")
        case "any":
            conversation.tool_choice = ToolChoice("required")
        case "none":
            conversation.tool_choice = ToolChoice("none")
        case "tool":
            conversation.tool_choice = ToolChoice("tool", (_required(choice, "name", str, "tool_choice."),))
        case _:
            raise _invalid("tool_choice.type", "must be `auto`, `any`, `tool` or `none`")
    is_disabled = _optional(choice, "disable_parallel_tool_use", bool, "tool_choice.")
    if is_disabled is not None:
        conversation.parallel_tool_calls = not is_disabled


# Reasoning, format and metadata


def _read_reasoning(fields: JsonMapping, conversation: Conversation) -> None:
    options = ReasoningOptions()
    thinking = _optional(fields, "thinking", dict, "")
    if thinking is not None:
        match _required(thinking, "type", str, "thinking."):
            case "enabled":
                options.mode = "enabled"
                options.budget_tokens = _required(thinking, "budget_tokens", int, "thinking.")
            case "adaptive":
                options.mode = "adaptive"
            case "disabled":
                options.mode = "disabled"
            case _:
                conversation.extras["thinking"] = thinking
        options.display = _optional(thinking, "display", str, "thinking.")
    config = _optional(fields, "output_config", dict, "") or {}
    options.effort = _last_effort(fields) or _optional(config, "effort", str, "output_config.")
    if options != ReasoningOptions():
        conversation.reasoning = options


def _last_effort(fields: JsonMapping) -> str | None:
    """The effort that a system message behind the last answer sets for the next one."""
    for message in reversed(fields["messages"]):
        if message.get("role") == "assistant":
            break
        config = message.get("output_config")
        if isinstance(config, dict) and isinstance(effort := config.get("effort"), str):
            return effort
    return None


def _read_output(fields: JsonMapping, conversation: Conversation) -> None:
    config = _optional(fields, "output_config", dict, "") or {}
    for name, value in config.items():
        if name not in {"effort", "format"} and value is not None:
            conversation.extras[f"output_config.{name}"] = value
    path = "output_config.format."
    shape = _optional(config, "format", dict, "output_config.")
    if shape is None:  # its name before `output_config`
        path = "output_format."
        shape = _optional(fields, "output_format", dict, "")
    if shape is None:
        return
    if _required(shape, "type", str, path) == "json_schema":
        conversation.output = OutputFormat("json_schema", schema=_required(shape, "schema", dict, path))
    else:
        conversation.extras[path[:-1]] = shape


def _read_metadata(fields: JsonMapping, conversation: Conversation) -> None:
    metadata = dict(_optional(fields, "metadata", dict, "") or {})
    user = metadata.pop("user_id", None)
    if isinstance(user, str):
        conversation.user = user
    conversation.metadata = metadata or None
    tier = fields.get("service_tier")
    if isinstance(tier, str) and tier in _SERVICE_TIERS:
        conversation.service_tier = _SERVICE_TIERS[tier]
    elif tier is not None:
        conversation.extras["service_tier"] = tier
