"""A chat request -> the middle shape. Pure.

The list of fields is open: a field without a place in the middle shape goes into `extras` by its name, parts
of unknown types become `Other`, and tools of unknown types go into `extras` as `tools.<type>`. Only a wrong
type of a value that is relied on is an error. Also read are fields that other servers added to the API:
`top_k`, `reasoning` (OpenRouter), `thinking` (DeepSeek), `cache_control`, and the legacy functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.translation.chat import citations, reasoning
from sanic_proxy.translation.chat.fields import Fields, wrong_type
from sanic_proxy.translation.conversation import (
    Audio,
    CallKind,
    Conversation,
    Document,
    Image,
    Other,
    OutputFormat,
    Part,
    ReasoningOptions,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.media_types import media_type_of

_READ = frozenset(
    [
        *(
            "model",
            "messages",
            "stream",
            "stream_options",
            "tools",
            "functions",
            "tool_choice",
            "function_call",
        ),
        *(
            "parallel_tool_calls",
            "max_completion_tokens",
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "stop",
        ),
        *("seed", "presence_penalty", "frequency_penalty", "top_logprobs", "reasoning_effort", "verbosity"),
        *("user", "safety_identifier", "service_tier", "prompt_cache_key", "metadata", "response_format"),
        *("n", "reasoning", "thinking", "logprobs"),
    ]
)
_READ_IN_MESSAGES = frozenset(
    [
        *("role", "content", "name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call"),
        *("annotations", "reasoning_details", "cache_control", *reasoning.TEXT_FIELDS),
    ]
)
_READ_IN_FUNCTIONS = frozenset({"name", "description", "parameters", "strict", "cache_control"})
# Values that ask for what an answer is anyway.
_DEFAULTS: JsonMapping = {"store": False, "modalities": ["text"], "logit_bias": {}}
# A function call of the legacy API has no id: these are made for it and its result.
_LEGACY_ID = "call_function_"


def read(fields: JsonMapping) -> Conversation:
    """The conversation of a request. Raises InvalidRequest."""
    root = Fields(fields)
    extras: Json = {
        name: value
        for name, value in root.others(_READ).items()
        if not (name in _DEFAULTS and value == _DEFAULTS[name])
    }
    model = root.required_text("model")
    messages = list(root.members("messages"))
    if not messages:
        raise wrong_type("messages", "a list that is not empty")
    conversation = Conversation(
        model,
        _History(extras).turns(messages),
        is_streaming=root.flag("stream") or False,
        include_usage=_include_usage(root, extras),
        tools=list(_tools(root, extras)),
        tool_choice=_tool_choice(root, extras),
        parallel_tool_calls=root.flag("parallel_tool_calls"),
        max_tokens=_first(root.whole("max_completion_tokens"), root.whole("max_tokens")),
        temperature=root.number("temperature"),
        top_p=root.number("top_p"),
        top_k=root.whole("top_k"),
        stop=_stop(root),
        seed=root.whole("seed"),
        presence_penalty=root.number("presence_penalty"),
        frequency_penalty=root.number("frequency_penalty"),
        top_logprobs=root.whole("top_logprobs"),
        reasoning=_reasoning_options(root),
        output=_output(root, extras),
        verbosity=root.text("verbosity"),
        user=_first(root.text("user"), root.text("safety_identifier")),
        service_tier=root.text("service_tier"),
        prompt_cache_key=root.text("prompt_cache_key"),
        metadata=root.mapping("metadata"),
        extras=extras,
    )
    _read_choices(root, conversation)
    return conversation


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _read_choices(root: Fields, conversation: Conversation) -> None:
    """`n` and `logprobs`, as far as they ask for more than one plain answer."""
    n = root.whole("n")
    if n is not None and n != 1:
        conversation.extras["n"] = n
    if root.flag("logprobs") and conversation.top_logprobs is None:
        conversation.extras["logprobs"] = True
    safety_identifier = root.text("safety_identifier")
    if safety_identifier is not None and safety_identifier != conversation.user:
        conversation.extras["safety_identifier"] = safety_identifier


def _include_usage(root: Fields, extras: Json) -> bool:
    options = root.member("stream_options")
    if options is None:
        return False
    for name, value in options.value.items():
        if name != "include_usage" and value:
            extras[f"stream_options.{name}"] = value
    return options.flag("include_usage") or False


def _stop(root: Fields) -> list[str]:
    if isinstance(stop := root.value.get("stop"), str):
        return [stop]
    stops = root.items("stop")
    for index, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise wrong_type(f"stop.{index}", "a string")
    return list(stops)


def _reasoning_options(root: Fields) -> ReasoningOptions | None:
    options = ReasoningOptions(effort=root.text("reasoning_effort"))
    if (reasoning_field := root.member("reasoning")) is not None:
        options.effort = _first(options.effort, reasoning_field.text("effort"))
        options.summary = reasoning_field.text("summary")
        options.budget_tokens = reasoning_field.whole("max_tokens")
        if reasoning_field.flag("enabled") is False:
            options.mode = "disabled"
    if (thinking := root.member("thinking")) is not None:
        match thinking.text("type"):
            case "enabled" | "adaptive" | "disabled" as mode:
                options.mode = mode
            case _:
                pass
        options.budget_tokens = _first(thinking.whole("budget_tokens"), options.budget_tokens)
    return None if options == ReasoningOptions() else options


def _output(root: Fields, extras: Json) -> OutputFormat | None:
    if (wanted := root.member("response_format")) is None:
        return None
    match wanted.text("type"):
        case "text":
            return OutputFormat("text")
        case "json_object":
            return OutputFormat("json_object")
        case "json_schema":
            made = wanted.required_member("json_schema")
            return OutputFormat(
                "json_schema",
                made.text("name"),
                made.mapping("schema"),
                made.flag("strict"),
                made.text("description"),
            )
        case _:
            extras["response_format"] = dict(wanted.value)
            return None


# Tools.


def _tools(root: Fields, extras: Json) -> Iterator[Tool]:
    for tool in root.members("tools"):
        match tool.text("type"):
            case "function" | None:
                yield _function(tool.required_member("function"), extras, tool.mapping("cache_control"))
            case "custom":
                custom = tool.required_member("custom")
                yield Tool(
                    custom.required_text("name"),
                    custom.text("description"),
                    kind="custom",
                    format=_custom_format(custom.member("format")),
                )
            case kind:
                extras[f"tools.{kind}"] = dict(tool.value)
    for function in root.members("functions"):
        yield _function(function, extras)


def _function(function: Fields, extras: Json, cache_control: Json | None = None) -> Tool:
    others = function.others(_READ_IN_FUNCTIONS)
    extras.update({f"tools.{name}": value for name, value in others.items()})
    return Tool(
        function.required_text("name"),
        function.text("description"),
        function.mapping("parameters"),
        function.flag("strict"),
        cache_control=_first(cache_control, function.mapping("cache_control")),
        extras=others,
    )


def _custom_format(wanted: Fields | None) -> Json | None:
    """A format as the middle shape has it: flat, as in OpenAI's Responses."""
    if wanted is None:
        return None
    if (grammar := wanted.mapping("grammar")) is not None:
        return {"type": "grammar", **grammar}
    return dict(wanted.value)


def _tool_choice(root: Fields, extras: Json) -> ToolChoice | None:
    value = root.value.get("tool_choice")
    if value is None:
        return _function_choice(root)
    if isinstance(value, str):
        return _choice_word(value, "tool_choice")
    choice = Fields(value, "tool_choice")
    match choice.text("type"):
        case "function" | "custom" as kind:
            return ToolChoice("tool", (choice.required_member(kind).required_text("name"),))
        case "allowed_tools":
            allowed = choice.required_member("allowed_tools")
            names = tuple(_allowed_names(allowed))
            return ToolChoice("required" if allowed.text("mode") == "required" else "auto", names)
        case _:
            extras["tool_choice"] = dict(choice.value)
            return None


def _allowed_names(allowed: Fields) -> Iterator[str]:
    for tool in allowed.members("tools"):
        kind = tool.text("type") or "function"
        if kind in {"function", "custom"}:
            yield tool.required_member(kind).required_text("name")


def _function_choice(root: Fields) -> ToolChoice | None:
    value = root.value.get("function_call")
    if value is None:
        return None
    if isinstance(value, str):
        return _choice_word(value, "function_call")
    return ToolChoice("tool", (Fields(value, "function_call").required_text("name"),))


def _choice_word(word: str, path: str) -> ToolChoice:
    match word:
        case "auto" | "none" | "required":
            return ToolChoice(word)
        case "any":
            return ToolChoice("required")
        case _:
            raise InvalidRequest(
                f"The parameter `{path}` must be `none`, `auto`, `required` or an object", param=path
            )


# Messages.


class _History:
    """Reads messages in order. The kind of a result is that of its call."""

    def __init__(self, extras: Json) -> None:
        self._extras = extras
        self._kinds: dict[str, CallKind] = {}
        self._function_id = _LEGACY_ID + "0"

    def turns(self, messages: list[Fields]) -> list[Turn]:
        turns: list[Turn] = []
        for index, message in enumerate(messages):
            turn = self._turn(message, index)
            turn.extras = message.others(_READ_IN_MESSAGES)
            self._extras.update({f"messages.{name}": value for name, value in turn.extras.items()})
            # The results of one turn of the model are one turn.
            if turn.role == "tool" and turns and turns[-1].role == "tool":
                turns[-1].parts += turn.parts
            else:
                turns.append(turn)
        return turns

    def _turn(self, message: Fields, index: int) -> Turn:
        match message.required_text("role"):
            case "system" | "developer" | "user" as role:
                return Turn(role, list(_content(message)), message.text("name"))
            case "assistant":
                return Turn("assistant", list(self._assistant(message, index)), message.text("name"))
            case "tool":
                return Turn("tool", [self._result(message, message.required_text("tool_call_id"))])
            case "function":
                return Turn("tool", [self._result(message, self._function_id)])
            case _:
                path = message.at("role")
                known = "`system`, `developer`, `user`, `assistant` or `tool`"
                raise InvalidRequest(f"The parameter `{path}` must be {known}", param=path)

    def _result(self, message: Fields, call_id: str) -> ToolResult:
        return ToolResult(
            call_id,
            list(_content(message)),
            kind=self._kinds.get(call_id, "function"),
            cache_control=message.mapping("cache_control"),
        )

    def _assistant(self, message: Fields, index: int) -> Iterator[Part]:
        yield from reasoning.of_client(message.value)
        marks = citations.read(message.value)
        for part in _content(message):
            if marks and isinstance(part, Text):
                part.annotations, marks = marks, None
            yield part
        if refusal := message.text("refusal"):
            yield Refusal(refusal)
        if (audio := message.mapping("audio")) is not None:
            yield Other("audio", audio)
        for call in message.members("tool_calls"):
            yield self._call(call)
        if (function := message.member("function_call")) is not None:
            self._function_id = f"{_LEGACY_ID}{index}"
            yield ToolCall(self._function_id, function.required_text("name"), _arguments(function))

    def _call(self, call: Fields) -> Part:
        match call.text("type") or ("custom" if "custom" in call.value else "function"):
            case "function":
                function = call.required_member("function")
                return ToolCall(
                    call.required_text("id"), function.required_text("name"), _arguments(function)
                )
            case "custom":
                custom = call.required_member("custom")
                made = ToolCall(
                    call.required_text("id"),
                    custom.required_text("name"),
                    custom.text("input") or "",
                    "custom",
                )
                self._kinds[made.id] = "custom"
                return made
            case kind:
                return Other(kind, dict(call.value))


def _arguments(function: Fields) -> str:
    """The text of the arguments. Some clients send the object itself."""
    value = function.value.get("arguments")
    if isinstance(value, dict):
        return codec.dumps(value).decode()
    return function.text("arguments") or ""


def _content(message: Fields) -> Iterator[Part]:
    """The parts of a message's content, which is a string or a list of parts. An empty text is no part."""
    content = message.value.get("content")
    if isinstance(content, str):
        content = [content]
    elif content is not None and not isinstance(content, list):
        raise wrong_type(message.at("content"), "a string or a list of parts")
    for index, item in enumerate(content or ()):
        if not isinstance(item, str):
            yield from _part(Fields(item, f"{message.at('content')}.{index}"))
        elif item:
            yield Text(item)


def _part(part: Fields) -> Iterator[Part]:
    cache_control = part.mapping("cache_control")
    match part.text("type") or ("text" if "text" in part.value else ""):
        case "text" | "input_text" | "output_text":
            if text := part.required_text("text"):
                yield Text(text, cache_control)
        case "image_url":
            yield _image(part, cache_control)
        case "input_audio":
            audio = part.required_member("input_audio")
            yield Audio(audio.required_text("data"), audio.required_text("format"))
        case "file":
            yield _document(part.required_member("file"), cache_control)
        case "refusal":
            yield Refusal(part.required_text("refusal"))
        case "":
            part.required_text("type")
        case kind:
            yield Other(kind, dict(part.value))


def _image(part: Fields, cache_control: Json | None) -> Image:
    if isinstance(url := part.value.get("image_url"), str):
        return Image(url, cache_control=cache_control)
    image = part.required_member("image_url")
    return Image(image.required_text("url"), detail=image.text("detail"), cache_control=cache_control)


def _document(file: Fields, cache_control: Json | None) -> Document:
    name = file.text("filename")
    if (file_id := file.text("file_id")) is not None:
        return Document(file_id=file_id, name=name, cache_control=cache_control)
    data = file.required_text("file_data")
    if not data.startswith(("data:", "https:", "http:")):
        media_type = media_type_of(name or "") or "application/pdf"
        data = f"data:{media_type};base64,{data}"
    return Document(url=data, name=name, cache_control=cache_control)
