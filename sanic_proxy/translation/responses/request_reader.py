"""A client's Responses request -> a conversation. Pure.

The items of the input become turns by these rules:

- Consecutive items of the model (reasoning, message, calls) are one turn, as other APIs have one message for
  them. A message whose `phase` differs from that of a message before it begins another turn.
- The result of a call is placed behind the turn with that call, ahead of whatever the input has in between:
  chats and Messages reject anything else there.
- Tools that are declared by an item (`additional_tools`, the output of a tool search) join the others.
- Items of a kind that only Responses has become `Other` parts, which writers drop and report.

`Conversation.extras` names the request's fields that have no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
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
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.media_types import media_type_of
from sanic_proxy.translation.responses import compaction
from sanic_proxy.translation.responses.checked import Checked, given, wrong
from sanic_proxy.translation.responses.items import ENCRYPTED_REASONING, NATIVE, reasoning_parts
from sanic_proxy.translation.responses.tools import TOOL_SEARCH, Tools, echoed_tools

# Fields that are read, and the values of others that ask for what holds anyway.
_READ = frozenset({"model", "input", "tools", "stream", "reasoning", "text"})
_WITHOUT_EFFECT: JsonMapping = {
    "store": False,
    "background": False,
    "truncation": "disabled",
    "stream_options": {"include_obfuscation": False},
    "include": [ENCRYPTED_REASONING],
}
_NEEDS_STORE: Mapping[str, str] = {
    "previous_response_id": "send the whole conversation as `input`",
    "conversation": "send the whole conversation as `input`",
    "background": "leave it out or set it to false",
    "prompt": "send the prompt's text as `instructions` and `input`",
}
_MESSAGE_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}
_CALLS: Mapping[str, CallKind] = {"function_call": "function", "custom_tool_call": "custom"}
_RESULTS: Mapping[str, CallKind] = {
    "function_call_output": "function",
    "custom_tool_call_output": "custom",
}
# Fields that a response repeats as they were given: those that are read, and those that are dropped.
_READ_AND_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "temperature",
    "tool_choice",
    "top_logprobs",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "user",
)
_ECHOED = (*_READ_AND_ECHOED, "max_tool_calls", "truncation")


def read_request(fields: JsonMapping) -> Conversation:
    """The conversation. Raises InvalidRequest for a wrong type, and for what needs stored responses."""
    request = Checked(dict(fields))
    _refuse_stored(request)
    items = _Items()
    instructions = request.optional_text("instructions")
    if instructions:
        items.turns.append(Turn("system", [Text(instructions)]))
    # First the tools of the request itself, so that those of the items can replace them.
    items.tools.read(request.children("tools"))
    _read_input(request, items)
    if not items.turns:
        raise InvalidRequest("The parameter `input` is missing or empty", param="input")
    conversation = Conversation(
        model=request.text("model"),
        turns=items.all_turns(),
        is_streaming=request.flag("stream") is True,
        tools=list(items.tools.by_key.values()),
        tool_choice=items.tools.choice(request),
        parallel_tool_calls=request.flag("parallel_tool_calls"),
        max_tokens=request.integer("max_output_tokens"),
        temperature=request.number("temperature"),
        top_p=request.number("top_p"),
        presence_penalty=request.number("presence_penalty"),
        frequency_penalty=request.number("frequency_penalty"),
        top_logprobs=request.integer("top_logprobs"),
        user=request.optional_text("safety_identifier") or request.optional_text("user"),
        service_tier=request.optional_text("service_tier"),
        prompt_cache_key=request.optional_text("prompt_cache_key"),
        metadata=request.json_object("metadata"),
        extras={name: value for name, value in given(request.fields) if _is_dropped(name, value)},
    )
    request.integer("max_tool_calls")
    request.optional_text("truncation")
    _read_reasoning(request, conversation)
    _read_text(request, conversation)
    conversation.extras |= {f"tools.{kind}": tool for kind, tool in items.tools.hosted.items()}
    conversation.extras |= items.tools.dropped | items.dropped
    conversation.repeated = _repeated(request.fields)
    return conversation


def _refuse_stored(request: Checked) -> None:
    request.flag("background")
    for name, advice in _NEEDS_STORE.items():
        if request.fields.get(name):
            raise InvalidRequest(
                f"The parameter `{name}` needs stored responses, which this model's provider does not have: "
                f"{advice}",
                param=name,
            )


def _is_dropped(name: str, value: object) -> bool:
    if name in _READ or name in _READ_AND_ECHOED or name in _NEEDS_STORE:
        return False
    if name == "include" and isinstance(value, list):
        return any(item != ENCRYPTED_REASONING for item in value)
    return bool(value != _WITHOUT_EFFECT.get(name)) and value != {}


def _read_reasoning(request: Checked, conversation: Conversation) -> None:
    if (options := request.child("reasoning")) is None:
        return
    summary = options.optional_text("summary") or options.optional_text("generate_summary")
    conversation.reasoning = ReasoningOptions(effort=options.optional_text("effort"), summary=summary)
    for name, value in given(options.fields):
        if name not in {"effort", "summary", "generate_summary"}:
            conversation.extras[f"reasoning.{name}"] = value


def _read_text(request: Checked, conversation: Conversation) -> None:
    if (text := request.child("text")) is None:
        return
    conversation.verbosity = text.optional_text("verbosity")
    if (wanted := text.child("format")) is None:
        return
    match wanted.text("type"):
        case "text":
            conversation.output = OutputFormat("text")
        case "json_object":
            conversation.output = OutputFormat("json_object")
        case "json_schema":
            conversation.output = OutputFormat(
                "json_schema",
                wanted.optional_text("name"),
                wanted.json_object("schema"),
                wanted.flag("strict"),
                wanted.optional_text("description"),
            )
        case _:
            raise wrong("text.format.type", '"text", "json_object" or "json_schema"')


def _repeated(fields: Json) -> Json:
    repeated = {name: fields[name] for name in _ECHOED if fields.get(name) is not None}
    if repeated.get("service_tier") == "auto":
        del repeated["service_tier"]  # a response names the tier that was used
    repeated["tools"] = echoed_tools(fields.get("tools"))
    repeated["reasoning"] = {"effort": None, "summary": None, **(fields.get("reasoning") or {})}
    repeated["text"] = {"format": {"type": "text"}, **dict(given(fields.get("text") or {}))}
    return repeated


def _read_input(request: Checked, items: _Items) -> None:
    if isinstance(text := request.fields.get("input"), str):
        if text:
            items.turns.append(Turn("user", [Text(text)]))
        return
    for item in request.children("input"):
        items.read(item)


class _Items:
    """The turns of an input's items, and the tools that they declare."""

    __slots__ = ("_calling_turns", "_has_call", "_has_message", "_late_results", "dropped", "tools", "turns")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.tools = Tools()
        self.dropped: Json = {}
        self._calling_turns: dict[str, int] = {}  # ids of calls -> positions in `turns`
        # Results that came when other turns stood behind their calls' turn already: by its position.
        self._late_results: dict[int, Turn] = {}
        # Whether the last turn, if it is the model's, has text from a message, and a call.
        self._has_message = self._has_call = False

    def all_turns(self) -> list[Turn]:
        """The turns, with late results behind the turns of their calls."""
        placed: list[Turn] = []
        for at, turn in enumerate(self.turns):
            placed.append(turn)
            if (results := self._late_results.get(at)) is not None:
                placed.append(results)
        return placed

    def read(self, item: Checked) -> None:
        """Add one item."""
        kind = item.optional_text("type") or ("message" if "role" in item.fields else "item_reference")
        if kind in _CALLS:
            self._add_call(_call(item, _CALLS[kind]))
        elif kind in _RESULTS:
            self._add_result(ToolResult(item.text("call_id"), _output(item), kind=_RESULTS[kind]))
        else:
            self._read_other(item, kind)

    def _read_other(self, item: Checked, kind: str) -> None:
        match kind:
            case "message":
                self._read_message(item)
            case "reasoning":
                self._of_model().parts += reasoning_parts(_reasoning(item), NATIVE)
            case "tool_search_call" if item.fields.get("execution") == "client":
                arguments = item.fields.get("arguments")
                text = arguments if isinstance(arguments, str) else _json(arguments)
                self._add_call(ToolCall(item.text("call_id"), TOOL_SEARCH, text, "tool_search"))
            case "tool_search_output":
                self._read_found_tools(item)
            case "additional_tools":
                self.tools.read(item.children("tools"))
            case "compaction" if summary := compaction.summary_of(item.text("encrypted_content")):
                self.turns.append(Turn("user", [Text(summary)]))
            case "compaction_trigger":
                self.dropped["input.compaction_trigger"] = True
            case "item_reference":
                self._read_reference(item)
            case _:
                self._of_model().parts.append(Other(kind, item.fields))

    def _read_message(self, item: Checked) -> None:
        role = _MESSAGE_ROLES.get(item.text("role"))
        if role is None:
            raise wrong(f"{item.path}role", '"user", "assistant", "system" or "developer"')
        parts = _content(item, "content")
        if role != "assistant":
            self.turns.append(Turn(role, parts))
            return
        turn, phase = self._of_model(), item.optional_text("phase")
        if self._has_message and phase != turn.phase and not self._has_call:
            turn = Turn("assistant", [], phase=phase)
            self.turns.append(turn)
        elif not self._has_message:
            turn.phase = phase
        turn.parts += parts
        self._has_message = True

    def _of_model(self) -> Turn:
        """The turn of the model that is last, or a new one."""
        if not self.turns or self.turns[-1].role != "assistant":
            self.turns.append(Turn("assistant", []))
            self._has_message = self._has_call = False
        return self.turns[-1]

    def _add_call(self, call: ToolCall) -> None:
        self._of_model().parts.append(call)
        self._has_call = True
        self._calling_turns[call.id] = len(self.turns) - 1

    def _add_result(self, result: ToolResult) -> None:
        """Add a result behind its call; at the end, if the call is not part of the input."""
        at = self._calling_turns.get(result.call_id)
        if at is None:
            has_results = bool(self.turns) and self.turns[-1].role == "tool"
            at = len(self.turns) - (2 if has_results else 1)
        if at + 1 == len(self.turns):
            self.turns.append(Turn("tool", []))
        behind = self.turns[at + 1]
        turn = behind if behind.role == "tool" else self._late_results.setdefault(at, Turn("tool", []))
        turn.parts.append(result)

    def _read_found_tools(self, item: Checked) -> None:
        """The output of a tool search: the tools in it can be called from now on."""
        self.tools.read(item.children("tools"))
        if (call_id := item.optional_text("call_id")) is None:
            self._of_model().parts.append(Other("tool_search_output", item.fields))
            return
        found = Text(_json(item.fields.get("tools") or []))
        self._add_result(ToolResult(call_id, [found], kind="tool_search"))

    def _read_reference(self, item: Checked) -> None:
        """Reasoning can be missed; a message or a call cannot."""
        if not item.text("id").startswith("rs_"):
            raise InvalidRequest(
                f"The item `{item.path.removesuffix('.')}` refers to a stored item, and this model's "
                "provider stores none: send the item itself",
                param=f"{item.path}id",
            )
        self.dropped["input.item_reference"] = True


def _call(item: Checked, kind: CallKind) -> ToolCall:
    arguments = item.text("arguments" if kind == "function" else "input")
    return ToolCall(item.text("call_id"), item.text("name"), arguments, kind, item.optional_text("namespace"))


def _reasoning(item: Checked) -> Json:
    """The item, with the types checked that are relied on."""
    for name in ("summary", "content"):
        for part in item.children(name):
            part.text("text")
    item.optional_text("id")
    item.optional_text("encrypted_content")
    return item.fields


def _output(item: Checked) -> list[Part]:
    if "output" not in item.fields:
        raise wrong(f"{item.path}output", "a string or a list", is_missing=True)
    return _content(item, "output")


def _content(item: Checked, name: str) -> list[Part]:
    """The parts of a message's or a result's content, which may be a string."""
    content = item.fields.get(name)
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [_part(part) for part in item.children(name)]


def _part(part: Checked) -> Part:
    match part.text("type"):
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            annotations = part.fields.get("annotations")
            return Text(part.text("text"), annotations=annotations if isinstance(annotations, list) else None)
        case "refusal":
            return Refusal(part.text("refusal"))
        case "input_image":
            return _image(part)
        case "input_file":
            return _document(part)
        case "input_audio":
            audio = Checked(part.fields.get("input_audio"), f"{part.path}input_audio.")
            return Audio(audio.text("data"), audio.text("format"))
        case kind:
            return Other(kind, part.fields)


def _image(part: Checked) -> Image:
    url, file_id = part.optional_text("image_url") or "", part.optional_text("file_id") or ""
    if not url and not file_id:
        raise wrong(f"{part.path}image_url", "a string", is_missing=True)
    return Image(url, file_id, part.optional_text("detail"))


def _document(part: Checked) -> Document:
    name = part.optional_text("filename")
    if data := part.optional_text("file_data"):
        return Document(url=_data_url(data, name), name=name)
    url, file_id = part.optional_text("file_url") or "", part.optional_text("file_id") or ""
    if not url and not file_id:
        raise wrong(f"{part.path}file_data", "a string", is_missing=True)
    return Document(url=url, file_id="" if url else file_id, name=name)


def _data_url(data: str, name: str | None) -> str:
    """A file's data as a data URL; some clients send bare base64."""
    if data.startswith("data:"):
        return data
    media_type = media_type_of(name or "") or "application/pdf"
    return f"data:{media_type};base64,{data}"


def _json(value: object) -> str:
    return codec.dumps(value if value is not None else {}).decode()
