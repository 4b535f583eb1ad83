"""A conversation -> a request to a provider that speaks Responses. Pure.

System messages that begin the conversation become `instructions`; later ones are items, as Responses has them
at any place, so `TargetTraits.hoists_system` has no effect here. Reasoning is returned to the provider that
made it, with its `encrypted_content`, and to no other. Nothing is stored (`store: false`): every request has
the whole conversation.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import groupby

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import (
    Audio,
    Conversation,
    Document,
    Image,
    Other,
    Part,
    Reasoning,
    ReasoningOptions,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.format import TargetTraits, WrittenRequest
from sanic_proxy.translation.responses.items import ENCRYPTED_REASONING, flat_annotations
from sanic_proxy.translation.responses.tools import TOOL_SEARCH, ToolWriter
from sanic_proxy.translation.tool_names import digest, function_name

# OpenAI's limits: https://platform.openai.com/docs/api-reference/responses/create.
_MIN_OUTPUT_TOKENS = 16
_MAX_CALL_ID_CHARS = 64
_MAX_USER_CHARS = 64

# Anthropic's budgets of reasoning tokens, as efforts: the first row whose bound exceeds the budget.
_EFFORTS: tuple[tuple[float, str], ...] = ((4096, "low"), (16384, "medium"), (float("inf"), "high"))

# Settings without a counterpart. Log probabilities exist, but the answers of translations have none.
_DROPPED = ("stop", "seed", "top_k", "presence_penalty", "frequency_penalty", "top_logprobs")


def write_request(conversation: Conversation, target: TargetTraits) -> WrittenRequest:
    """The request, the names of what it cannot express, and the tools whose names it changes."""
    tools = ToolWriter(conversation.tools)
    turns = list(conversation.turns)
    instructions = _instructions(turns)
    items = _Items(target.provider)
    if any(tool.cache_control is not None for tool in conversation.tools):
        items.dropped["tools.cache_control"] = True
    for turn in turns:
        items.write(turn)
    fields: Json = {
        "model": target.model,
        "instructions": instructions,
        "input": items.written,
        "stream": conversation.is_streaming or None,
        "store": False,
        "include": [ENCRYPTED_REASONING],
        "tools": tools.declared() or None,
        "tool_choice": tools.choice(conversation.tool_choice) if conversation.tool_choice else None,
        "parallel_tool_calls": conversation.parallel_tool_calls,
        "max_output_tokens": _max_output_tokens(conversation),
        "temperature": conversation.temperature,
        "top_p": conversation.top_p,
        "reasoning": _reasoning(conversation.reasoning),
        "text": _text(conversation),
        "safety_identifier": _user(conversation.user),
        "service_tier": conversation.service_tier,
        "prompt_cache_key": conversation.prompt_cache_key,
        "metadata": _metadata(conversation.metadata, items.dropped),
    }
    if "n" in conversation.extras:
        raise InvalidRequest("This model gives one answer at a time: `n` must be 1", param="n")
    items.dropped |= {name: True for name in _DROPPED if getattr(conversation, name) not in (None, [])}
    return WrittenRequest(
        {name: value for name, value in fields.items() if value is not None},
        dropped=tuple({**items.dropped, **conversation.extras}),
        originals=tools.originals,
    )


def effort_of(options: ReasoningOptions) -> str | None:
    """The effort that options of any API ask for: as it is named, else by the table of budgets."""
    if options.effort is not None or options.budget_tokens is None:
        return options.effort
    budget = options.budget_tokens
    return next(effort for bound, effort in _EFFORTS if budget < bound)


def _instructions(turns: list[Turn]) -> str | None:
    """The texts of the system messages at the beginning of `turns`, which are removed there."""
    texts: list[str] = []
    while turns and turns[0].role == "system" and all(isinstance(part, Text) for part in turns[0].parts):
        texts += [part.text for part in turns.pop(0).parts if isinstance(part, Text) and part.text]
    return "\n\n".join(texts) or None


def _max_output_tokens(conversation: Conversation) -> int | None:
    limit = conversation.max_tokens
    return None if limit is None else max(_MIN_OUTPUT_TOKENS, limit)


def _reasoning(options: ReasoningOptions | None) -> Json | None:
    if options is None:
        return None
    summary = options.summary or ("auto" if options.display == "summarized" else None)
    written = {"effort": effort_of(options), "summary": summary}
    return {name: value for name, value in written.items() if value is not None} or None


def _text(conversation: Conversation) -> Json | None:
    written: Json = {}
    if (output := conversation.output) is not None:
        wanted: Json = {"type": output.type}
        if output.type == "json_schema":
            wanted |= {"name": function_name(output.name or "answer"), "schema": output.schema or {}}
            optional = {"strict": output.strict, "description": output.description}
            wanted |= {name: value for name, value in optional.items() if value is not None}
        written["format"] = wanted
    if conversation.verbosity is not None:
        written["verbosity"] = conversation.verbosity
    return written or None


def _user(user: str | None) -> str | None:
    return user if user is None or len(user) <= _MAX_USER_CHARS else digest(user, _MAX_USER_CHARS)


def _metadata(metadata: Json | None, dropped: Json) -> Json | None:
    """Metadata of texts, which is all that Responses takes."""
    if metadata is not None and not all(isinstance(value, str) for value in metadata.values()):
        dropped["metadata"] = True
        return None
    return metadata or None


class _Items:
    """The items of a request's turns. `dropped` names what they have no place for."""

    __slots__ = ("_provider", "dropped", "written")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.written: list[Json] = []
        self.dropped: Json = {}

    def write(self, turn: Turn) -> None:
        """Add one turn."""
        if turn.name:
            self.dropped["messages.name"] = True
        for kind, group in groupby(turn.parts, _kind_of_item):
            parts = list(group)
            if kind == "message":
                self._write_message(turn, parts)
            elif kind == "reasoning":
                self._write_reasoning([part for part in parts if isinstance(part, Reasoning)])
            else:
                for part in parts:
                    self._write_call(part)

    def _write_message(self, turn: Turn, parts: Sequence[Part]) -> None:
        is_model = turn.role == "assistant"
        content = [
            written
            for part in parts
            if (written := self._model_part(part) if is_model else self._part(part)) is not None
        ]
        if not content:
            return
        item: Json = {
            "type": "message",
            "role": "user" if turn.role == "tool" else turn.role,
            "content": content,
        }
        if is_model:
            # The specification demands an id and a status of the model's own messages.
            item |= {"id": f"msg_{len(self.written)}", "status": "completed"}
            if turn.phase is not None:
                item["phase"] = turn.phase
        self.written.append(item)

    def _write_reasoning(self, parts: Sequence[Reasoning]) -> None:
        """One item for the pieces of each, which have the same id; the last of them has the signature."""
        pieces: list[Reasoning] = []
        for at, part in enumerate(parts):
            pieces.append(part)
            following = parts[at + 1] if at + 1 < len(parts) else None
            if following is None or part.id is None or following.id != part.id:
                self._write_reasoning_item(pieces)
                pieces = []

    def _write_reasoning_item(self, pieces: Sequence[Reasoning]) -> None:
        last = pieces[-1]
        if not last.signature or last.origin != self._provider:
            self.dropped["messages.reasoning"] = True
            return
        summary = [{"type": "summary_text", "text": part.text} for part in pieces if part.is_summary]
        content = [
            {"type": "reasoning_text", "text": part.text}
            for part in pieces
            if part.text and not part.is_summary
        ]
        # Without its id, which need not be the one that the provider gave it: Codex leaves it out as well.
        item: Json = {"type": "reasoning", "summary": summary, "encrypted_content": last.signature}
        if content:
            item["content"] = content
        self.written.append(item)

    def _write_call(self, part: Part) -> None:
        if isinstance(part, ToolCall):
            self.written.append(_call(part))
        elif isinstance(part, ToolResult):
            self.written.append(self._result(part))

    def _result(self, result: ToolResult) -> Json:
        call_id = _call_id(result.call_id)
        if result.kind == TOOL_SEARCH:
            text = "".join(part.text for part in result.content if isinstance(part, Text))
            found = codec.loads_tolerant(text.encode("utf-8", "surrogatepass"))
            return {
                "type": "tool_search_output",
                "call_id": call_id,
                "execution": "client",
                "status": "completed",
                "tools": found if isinstance(found, list) else [],
            }
        self._note_cache_control(result)
        output: str | list[Json]
        if all(isinstance(part, Text) for part in result.content) and len(result.content) <= 1:
            output = "".join(part.text for part in result.content if isinstance(part, Text))
            output = f"Error: {output}" if result.is_error else output
        else:
            output = [{"type": "input_text", "text": "Error:"}] if result.is_error else []
            output += [written for part in result.content if (written := self._part(part)) is not None]
        kind = "custom_tool_call_output" if result.kind == "custom" else "function_call_output"
        return {"type": kind, "call_id": call_id, "output": output}

    def _part(self, part: Part) -> Json | None:
        """A part of a message to the model, or of a tool's output."""
        self._note_cache_control(part)
        match part:
            case Text(text):
                return {"type": "input_text", "text": text} if text else None
            case Refusal(text):
                return {"type": "input_text", "text": text}
            case Image():
                return _image(part)
            case Document():
                if part.citations:
                    self.dropped["messages.citations"] = True
                return _document(part)
            case Audio(data, format_):
                return {"type": "input_audio", "input_audio": {"data": data, "format": format_}}
            case Other():
                self.dropped[f"messages.{part.type}"] = True
        return None

    def _model_part(self, part: Part) -> Json | None:
        """A part of a message of the model."""
        self._note_cache_control(part)
        match part:
            case Text(text):
                if part.citations:
                    self.dropped["messages.citations"] = True
                annotations = flat_annotations(part.annotations)
                return {"type": "output_text", "text": text, "annotations": annotations} if text else None
            case Refusal(text):
                return {"type": "refusal", "refusal": text}
            case Other():
                self.dropped[f"messages.{part.type}"] = True
            case _:
                self.dropped[f"messages.{type(part).__name__.lower()}"] = True
        return None

    def _note_cache_control(self, part: Part) -> None:
        if getattr(part, "cache_control", None) is not None:
            self.dropped["messages.cache_control"] = True


def _kind_of_item(part: Part) -> str:
    match part:
        case Reasoning():
            return "reasoning"
        case ToolCall() | ToolResult():
            return "call"
        case _:
            return "message"


def _call(call: ToolCall) -> Json:
    item: Json = {"type": "function_call", "call_id": _call_id(call.id)}
    if call.kind == TOOL_SEARCH:
        value = codec.loads_tolerant(call.arguments.encode("utf-8", "surrogatepass"))
        arguments = call.arguments if value is None else value
        return {**item, "type": "tool_search_call", "execution": "client", "arguments": arguments}
    item["name"] = function_name(call.name)
    if call.kind == "custom":
        item |= {"type": "custom_tool_call", "input": call.arguments}
    else:
        item["arguments"] = call.arguments
    return item if call.namespace is None else {**item, "namespace": call.namespace}


def _call_id(call_id: str) -> str:
    """`call_id` within OpenAI's limit. Calls and their results get the same."""
    return call_id if len(call_id) <= _MAX_CALL_ID_CHARS else f"call_{digest(call_id, 40)}"


def _image(image: Image) -> Json:
    written: Json = {"type": "input_image", "detail": image.detail or "auto"}
    return {**written, "image_url": image.url} if image.url else {**written, "file_id": image.file_id}


def _document(document: Document) -> Json:
    """A document. One that is a plain text becomes a file as well, so that it stays apart from the prompt."""
    written: Json = {"type": "input_file"}
    if document.file_id:
        return {**written, "file_id": document.file_id}
    url, name = document.url, document.name
    if document.text:
        encoded = base64.b64encode(document.text.encode("utf-8", "replace")).decode()
        url, name = f"data:text/plain;base64,{encoded}", name or "document.txt"
    if not url.startswith("data:"):
        return {**written, "file_url": url}
    return {**written, "filename": name or "document.pdf", "file_data": url}
