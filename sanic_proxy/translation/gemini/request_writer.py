"""A conversation -> a request to a provider that speaks Gemini's API. Pure.

| conversation | Gemini | rule |
|---|---|---|
| system and developer turns | `systemInstruction` | all of them, in order |
| neighbours of one role | one content | |
| results of tools | `functionResponse`, behind the content with their calls | wherever they stood |
| images and documents in results | parts behind the results, with a text that says whose they are | |
| names of tools | `[a-zA-Z0-9_-]`, at most 64 | `tool_names` |
| schemas | `parametersJsonSchema`, `responseJsonSchema` | unchanged |
| signatures of reasoning | `thoughtSignature` of the part behind it | of the target's own, else dropped |
| a call of the current turn without one | `thoughts.SKIPPED_SIGNATURE` | Gemini 3 refuses it otherwise |
| effort | `thinkingLevel`, or `thinkingBudget` | by `TargetTraits.thinking` |

A content of the user's comes first, as Gemini demands it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation import signatures
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
from sanic_proxy.translation.gemini import media
from sanic_proxy.translation.gemini.thoughts import SKIPPED_SIGNATURE
from sanic_proxy.translation.gemini.values import API
from sanic_proxy.translation.messages.values import tool_input
from sanic_proxy.translation.tool_names import CUSTOM_SCHEMA, Functions, function_name, grammar_of

_EMPTY_USER_TEXT = "."
_LEVELS: Mapping[str, str] = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
# https://ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS: Mapping[str, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
}


def write(conversation: Conversation, target: TargetTraits) -> WrittenRequest:
    """See `Format.write_request`. The model's name is not part of the request: its path has it."""
    return _Writer(conversation, target).written()


class _Writer:
    """One request while it is written."""

    def __init__(self, conversation: Conversation, target: TargetTraits) -> None:
        self._asked = conversation
        self._target = target
        self._tools = Functions()
        self._dropped: dict[str, None] = {}
        self._contents: list[Json] = []
        self._names: dict[str, str] = {}  # of calls, by their ids
        self._results: defaultdict[str, deque[ToolResult]] = defaultdict(deque)
        # By `id()`: results with the same content are equal. The conversation keeps them all.
        self._unwritten: set[int] = set()

    def written(self) -> WrittenRequest:
        fields: Json = {}
        self._write_tools(fields)
        self._write_turns(fields)
        if config := self._config():
            fields["generationConfig"] = config
        self._note_rest()
        return WrittenRequest(fields, tuple(self._dropped), self._tools.originals)

    def _drop(self, name: str) -> None:
        self._dropped[name] = None

    # Tools

    def _write_tools(self, fields: Json) -> None:
        asked, choice = self._asked, self._asked.tool_choice
        declarations = []
        for tool in asked.tools:
            name = self._tools.add(tool.kind, tool.name, tool.namespace)
            declaration: Json = {"name": name}
            if description := "\n\n".join(filter(None, (tool.description, grammar_of(tool)))):
                declaration["description"] = description
            schema = CUSTOM_SCHEMA if tool.kind == "custom" else tool.parameters
            if schema:
                declaration["parametersJsonSchema"] = {"type": "object", **schema}
            declarations.append(declaration)
            if tool.cache_control:
                self._drop("tools.cache_control")
            if tool.strict:
                self._drop("tools.strict")
        if declarations:
            fields["tools"] = [{"functionDeclarations": declarations}]
        if choice is not None and declarations:
            fields["toolConfig"] = {"functionCallingConfig": self._calling(choice.mode, choice.names)}
        if asked.parallel_tool_calls is False:
            self._drop("parallel_tool_calls")

    def _calling(self, mode: str, names: tuple[str, ...]) -> Json:
        calling: Json = {"mode": {"auto": "AUTO", "none": "NONE"}.get(mode, "ANY")}
        if names and mode == "auto":
            calling["mode"] = "VALIDATED"  # the only other mode that can be limited to some tools
        if names:
            # Of tools with the same name in several namespaces, the first.
            functions = {
                tool.name: function_name(tool.name, tool.namespace) for tool in reversed(self._asked.tools)
            }
            calling["allowedFunctionNames"] = [functions.get(name, name) for name in names]
        return calling

    # Contents

    def _write_turns(self, fields: Json) -> None:
        for turn in self._asked.turns:
            for part in turn.parts:
                if isinstance(part, ToolResult):
                    self._results[part.call_id].append(part)
                    self._unwritten.add(id(part))
        system: list[Json] = []
        model: list[Turn] = []
        for turn in self._asked.turns:
            self._note(turn)
            if turn.role == "assistant":
                model.append(turn)
                continue
            if turn.role in {"system", "developer"}:
                if self._contents or model:
                    self._drop("messages.system.position")
                system += self._texts(turn.parts)
                continue
            self._write_model(model)
            self._append("user", list(self._user_parts(turn.parts)))
        self._write_model(model)
        if system:
            fields["systemInstruction"] = {"parts": system}
        if not self._contents or self._contents[0]["role"] != "user":
            self._contents.insert(0, {"role": "user", "parts": [{"text": _EMPTY_USER_TEXT}]})
        _sign_current_calls(self._contents)
        fields["contents"] = self._contents

    def _note(self, turn: Turn) -> None:
        if turn.name:
            self._drop("messages.name")
        if turn.phase:
            self._drop("messages.phase")
        for part in turn.parts:
            if isinstance(part, Text) and part.citations:
                self._drop("messages.citations")
            if isinstance(part, Image) and part.detail not in {None, "auto"}:
                self._drop("messages.image.detail")
            if getattr(part, "cache_control", None):
                self._drop("messages.cache_control")

    def _append(self, role: str, parts: list[Json]) -> None:
        if not parts:
            return
        if self._contents and self._contents[-1]["role"] == role:
            self._contents[-1]["parts"] += parts
        else:
            self._contents.append({"role": role, "parts": parts})

    def _texts(self, parts: Iterable[Part]) -> Iterator[Json]:
        for part in parts:
            if isinstance(part, Text) and part.text:
                yield {"text": part.text}
            elif not isinstance(part, Text):
                self._drop_part(part)

    def _user_parts(self, parts: Iterable[Part]) -> Iterator[Json]:
        for part in parts:
            match part:
                case Text() | Refusal():
                    if part.text:
                        yield {"text": part.text}
                case Image() | Document() | Audio() if (written := media.written(part)) is not None:
                    yield written
                case ToolResult():
                    yield from self._orphan(part)
                case _:
                    self._drop_part(part)

    def _orphan(self, result: ToolResult) -> Iterator[Json]:
        """A result that belongs to no call before it: a text of the user's."""
        if id(result) in self._unwritten:
            self._unwritten.remove(id(result))
            self._drop("messages.tool_result.call_id")
            yield {"text": f"Result of the tool call `{result.call_id}`:"}
            yield from self._user_parts(result.content)

    def _write_model(self, turns: list[Turn]) -> None:
        """Write the model's turns, and the results of their calls behind them. Empties the list."""
        parts: list[Json] = []
        calls: list[ToolCall] = []
        signature = ""
        for part in (part for turn in turns for part in turn.parts):
            if isinstance(part, Reasoning):
                signature = self._signature(part) or signature
                continue
            if (written := self._model_part(part)) is None:
                continue
            if signature:
                written["thoughtSignature"], signature = signature, ""
            parts.append(written)
            if isinstance(part, ToolCall):
                calls.append(part)
        if signature:
            parts.append({"text": "", "thoughtSignature": signature})
        self._append("model", parts)
        self._append("user", list(self._results_of(calls)))
        turns.clear()

    def _signature(self, part: Reasoning) -> str:
        if part.origin in {self._target.provider, signatures.native(API)}:
            return part.signature
        self._drop("messages.reasoning")
        return ""

    def _model_part(self, part: Part) -> Json | None:
        match part:
            case Text() | Refusal():
                return {"text": part.text} if part.text else None
            case ToolCall():
                name = self._tools.add(part.kind, part.name, part.namespace)
                self._names[part.id] = name
                return {"functionCall": {"id": part.id, "name": name, "args": tool_input(part)}}
            case _:
                self._drop_part(part)
                return None

    def _next_result(self, call: ToolCall) -> ToolResult:
        """The first result of a call's id that is not written yet; an empty one if there is none."""
        results = self._results[call.id]
        while results:
            result = results.popleft()
            if id(result) in self._unwritten:
                self._unwritten.remove(id(result))
                return result
        return ToolResult(call.id)

    def _results_of(self, calls: list[ToolCall]) -> Iterator[Json]:
        others: list[Json] = []
        for call in calls:
            result = self._next_result(call)
            written = list(self._user_parts(result.content))
            text = "\n\n".join(part["text"] for part in written if part.keys() == {"text"})
            files = [part for part in written if part.keys() != {"text"}]
            if files:
                others += [{"text": f"Content of the result of the tool call `{call.id}`:"}, *files]
            response = {"error" if result.is_error else "output": text}
            yield {"functionResponse": {"id": call.id, "name": self._names[call.id], "response": response}}
        yield from others

    def _drop_part(self, part: Part) -> None:
        kind = part.type if isinstance(part, Other) else type(part).__name__.lower()
        self._drop(f"messages.{kind}")

    # Options

    def _config(self) -> Json:
        asked = self._asked
        config: Json = {
            "maxOutputTokens": asked.max_tokens,
            "temperature": asked.temperature,
            "topP": asked.top_p,
            "topK": asked.top_k,
            "stopSequences": asked.stop or None,
            "seed": asked.seed,
            "presencePenalty": asked.presence_penalty,
            "frequencyPenalty": asked.frequency_penalty,
            "thinkingConfig": None if asked.reasoning is None else self._thinking(asked.reasoning),
        }
        output = asked.output
        if output is not None and output.type != "text":
            config["responseMimeType"] = "application/json"
            config["responseJsonSchema"] = output.schema
        return {name: value for name, value in config.items() if value is not None}

    def _thinking(self, options: ReasoningOptions) -> Json | None:
        thinking: Json = {}
        if options.mode == "disabled":
            thinking |= self._effort("none")
        elif options.effort is not None and options.effort not in _LEVELS:
            self._drop("reasoning.effort")
        elif options.effort is not None:
            thinking |= self._effort(options.effort)
        elif options.budget_tokens is not None:
            thinking["thinkingBudget"] = options.budget_tokens
        if options.mode != "disabled" and options.display != "omitted":
            thinking["includeThoughts"] = True
        return thinking or None

    def _effort(self, effort: str) -> Json:
        if self._target.thinking == "budget":
            return {"thinkingBudget": _BUDGETS[effort]}
        return {"thinkingLevel": _LEVELS[effort]}

    def _note_rest(self) -> None:
        """Report what has no place in the API."""
        asked = self._asked
        unknown: JsonMapping = {
            "metadata": asked.metadata,
            "prompt_cache_key": asked.prompt_cache_key,
            "service_tier": asked.service_tier,
            "top_logprobs": asked.top_logprobs,
            "user": asked.user,
            "verbosity": asked.verbosity,
        }
        for name, value in unknown.items():
            if value:
                self._drop(name)
        for name, value in asked.extras.items():
            if name == "n" and value is not None and value != 1:
                raise InvalidRequest("This provider gives one answer only: `n` must be 1", param="n")
            if name != "n":
                self._drop(name)


def _sign_current_calls(contents: list[Json]) -> None:
    """Mark calls of other models behind the user's last words: Gemini checks the first of each content."""
    for content in reversed(contents):
        parts = content["parts"]
        if content["role"] == "user":
            if not any("functionResponse" in part for part in parts):
                return
            continue
        for part in parts:
            if "functionCall" in part:
                part.setdefault("thoughtSignature", SKIPPED_SIGNATURE)
                break
