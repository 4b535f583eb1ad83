"""A conversation -> a Messages request for a target. Pure.

| Conversation | Messages | rule |
|---|---|---|
| system and developer turns before the first other turn | `system` | in order |
| later ones | `system`, or messages of role `system` | by `TargetTraits.hoists_system` |
| neighbours of one role | one message | results of tools first |
| results of tools | in the message behind that of their calls | wherever they stood |
| ids and names of tools | `[a-zA-Z0-9_-]+` | `tools`, `tool_names` |
| arguments | `input`, an object | `values.tool_input` |
| reasoning | `thinking`, `redacted_thinking` | with a signature of the target, else dropped |
| effort | `thinking` and `output_config.effort` | `thinking` |
| format `json_schema` | `output_config.format` | always strict; the name is not written |
| no limit | `max_tokens` | `TargetTraits.max_tokens` |
| temperature, `top_p`, `top_k` | the same | if `TargetTraits.takes_sampling`, else dropped |
| temperature above 1 | 1 | OpenAI's range ends at 2 |
| citations, documents | the same | citations in answers, documents in users' messages only |
| neither user's nor tool's turn first | the system prompt, or "." | a conversation begins with the user |

A system message in the middle has to stand behind a user's message, and before an answer or at the end;
where it does not, it waits for such a place, and belongs to `system` if there is none.
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.translation.conversation import Conversation, Turn
from sanic_proxy.translation.format import TargetTraits, WrittenRequest
from sanic_proxy.translation.messages import thinking, tools, values
from sanic_proxy.translation.messages.blocks import BlockWriter, text_block
from sanic_proxy.translation.messages.placement import append, place_results, simple_content, trim_prefill
from sanic_proxy.translation.tool_names import Functions, function_name

_SERVICE_TIERS: Mapping[str, str] = {"auto": "auto", "default": "standard_only"}
# A conversation has to begin with a message of the user's that is not blank.
_EMPTY_USER_TEXT = "."


def write(conversation: Conversation, target: TargetTraits) -> WrittenRequest:
    """See `Format.write_request`."""
    return _Writer(conversation, target).written()


class _Writer:
    """One request while it is written."""

    def __init__(self, conversation: Conversation, target: TargetTraits) -> None:
        self._asked = conversation
        self._target = target
        self._tools = Functions()
        self._dropped: dict[str, None] = {}
        self._blocks = BlockWriter(target.provider, self._tools, self._drop)
        self._fields: Json = {}

    def written(self) -> WrittenRequest:
        asked, fields = self._asked, self._fields
        fields["model"] = self._target.model
        fields["max_tokens"] = asked.max_tokens or self._target.max_tokens
        if asked.is_streaming:
            fields["stream"] = True
        self._write_tools()
        self._write_turns()
        self._write_sampling()
        self._write_output()
        if asked.reasoning is not None:
            thinking.write(asked.reasoning, fields, self._target, self._drop)
        self._write_metadata()
        self._write_extras()
        return WrittenRequest(fields, tuple(self._dropped), self._tools.originals)

    def _drop(self, name: str) -> None:
        self._dropped[name] = None

    # Tools

    def _write_tools(self) -> None:
        asked, choice = self._asked, self._asked.tool_choice
        names = set(choice.names) if choice is not None and choice.mode != "tool" else set()
        allowed = [tool for tool in asked.tools if not names or tool.name in names]
        written = [
            tools.definition(tool, self._tools.add(tool.kind, tool.name, tool.namespace)) for tool in allowed
        ]
        for name, value in asked.extras.items():
            if name.startswith("tools.") and isinstance(value, list) and _are_server_tools(name, value):
                written += value
        if written:
            self._fields["tools"] = written
        if chosen := self._tool_choice():
            if written:
                self._fields["tool_choice"] = chosen
            elif chosen["type"] in {"any", "tool"}:
                self._drop("tool_choice")

    def _tool_choice(self) -> Json | None:
        choice = self._asked.tool_choice
        chosen: Json = {"type": "auto"}
        if choice is not None:
            chosen["type"] = "any" if choice.mode == "required" else choice.mode
            if choice.mode == "tool":
                chosen["name"] = self._chosen_name(choice.names[0] if choice.names else "")
        is_parallel = self._asked.parallel_tool_calls
        if is_parallel is False or (is_parallel and choice is not None):
            if chosen["type"] != "none":
                chosen["disable_parallel_tool_use"] = not is_parallel
        elif choice is None:
            return None
        return chosen

    def _chosen_name(self, name: str) -> str:
        for tool in self._asked.tools:
            if tool.name == name:
                return function_name(tool.name, tool.namespace)
        return name

    # Messages

    def _write_turns(self) -> None:
        system: list[Json] = []
        messages: list[Json] = []
        waiting: list[Turn] = []
        for turn in self._asked.turns:
            self._note(turn)
            if turn.role not in {"system", "developer"}:
                role = "assistant" if turn.role == "assistant" else "user"
                if role == "assistant":
                    self._place_waiting(waiting, messages)
                if blocks := list(self._blocks.blocks(turn.parts, role)):
                    append(messages, role, blocks)
            elif messages and not self._target.hoists_system:
                waiting.append(turn)
            else:
                system += self._hoisted(turn) if messages else self._system_blocks(turn)
        self._place_waiting(waiting, messages)
        for turn in waiting:
            system += self._hoisted(turn)
        self._finish_turns(system, messages)

    def _finish_turns(self, system: list[Json], messages: list[Json]) -> None:
        if not messages and system:
            messages, system = [{"role": "user", "content": system}], []
        elif not messages or messages[0]["role"] != "user":
            messages.insert(0, {"role": "user", "content": [text_block(_EMPTY_USER_TEXT)]})
        place_results(messages)
        trim_prefill(messages)
        self._fields["messages"] = [
            {**message, "content": simple_content(message["content"])} for message in messages
        ]
        if system:
            self._fields["system"] = simple_content(system)

    def _note(self, turn: Turn) -> None:
        if turn.name:
            self._drop("messages.name")
        if turn.phase:
            self._drop("messages.phase")

    def _hoisted(self, turn: Turn) -> list[Json]:
        self._drop("messages.system.position")
        return self._system_blocks(turn)

    def _system_blocks(self, turn: Turn) -> list[Json]:
        for name in turn.extras:
            self._drop(f"messages.{name}")
        return [block for block in self._blocks.blocks(turn.parts, "system") if block["type"] == "text"]

    def _place_waiting(self, waiting: list[Turn], messages: list[Json]) -> None:
        """Write the waiting system messages, if a user's message stands before them."""
        if not waiting or messages[-1]["role"] != "user":
            return
        blocks: list[Json] = []
        extras: Json = {}
        for turn in waiting:
            blocks += [
                block for block in self._blocks.blocks(turn.parts, "system") if block["type"] == "text"
            ]
            extras |= turn.extras
        if blocks:
            messages.append({"role": "system", "content": blocks, **extras})
        waiting.clear()

    # Options

    def _write_sampling(self) -> None:
        asked, fields = self._asked, self._fields
        sampling = {"temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k}
        # 1 is the default of both, and models since 4.5 refuse both at once.
        stated = {name: value for name, value in sampling.items() if value is not None and value != 1}
        if not self._target.takes_sampling:
            for name in stated:
                self._drop(name)
        else:
            fields.update(stated)
            if fields.get("temperature", 1) > 1:
                fields["temperature"] = 1
                self._drop("temperature")
        if stop := [text for text in asked.stop if text.strip()]:
            fields["stop_sequences"] = stop
        if len(stop) < len(asked.stop):
            self._drop("stop")
        unknown = {
            "seed": asked.seed is not None,
            "presence_penalty": bool(asked.presence_penalty),
            "frequency_penalty": bool(asked.frequency_penalty),
            "top_logprobs": bool(asked.top_logprobs),
            "verbosity": asked.verbosity is not None,
            "prompt_cache_key": asked.prompt_cache_key is not None,
        }
        for name, is_set in unknown.items():
            if is_set:
                self._drop(name)

    def _write_output(self) -> None:
        output = self._asked.output
        if output is None or output.type == "text":
            return
        if output.type != "json_schema" or output.schema is None:
            self._drop("output")
            return
        schema = output.schema
        if output.description and "description" not in schema:
            schema = {**schema, "description": output.description}
        self._config()["format"] = {"type": "json_schema", "schema": schema}

    def _config(self) -> Json:
        config: Json = self._fields.setdefault("output_config", {})
        return config

    def _write_metadata(self) -> None:
        asked = self._asked
        if asked.user is not None:
            self._fields["metadata"] = {"user_id": asked.user}
        if asked.metadata:
            self._drop("metadata")
        if asked.service_tier is not None:
            if asked.service_tier in _SERVICE_TIERS:
                self._fields["service_tier"] = _SERVICE_TIERS[asked.service_tier]
            else:
                self._drop("service_tier")

    def _write_extras(self) -> None:
        """What only Messages has is written; what only another API has is reported."""
        for name, value in self._asked.extras.items():
            section, _, inner = name.partition(".")
            if name == "n" and value is not None and value != 1:
                raise InvalidRequest("This provider gives one answer only: `n` must be 1", param="n")
            if name in values.OWN_FIELDS and isinstance(value, values.OWN_FIELDS[name]):
                self._fields[name] = value
            elif section == "output_config" and inner:
                self._config()[inner] = value
            elif section == "tools" and inner:
                if not (_are_server_tools(name, value) or self._is_written(inner)):
                    self._drop(name)
            elif section == "messages" and inner:
                continue  # a turn's: reported where that is written without it
            elif name != "n":
                self._drop(name)

    def _is_written(self, tool_field: str) -> bool:
        return any(tool_field in tool for tool in self._fields.get("tools", ()))


def _are_server_tools(name: str, value: Any) -> bool:
    """Whether an extra holds definitions of tools as the reader of Messages keeps them."""
    kind = name.removeprefix("tools.")
    return isinstance(value, list) and all(
        isinstance(tool, dict) and tool.get("type") == kind for tool in value
    )
