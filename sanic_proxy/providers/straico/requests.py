"""A chat request as OpenAI has it -> the body Straico takes. Pure.

Straico knows the roles system, user and assistant, text, one model, `temperature` and `max_tokens`.
Tools, calls and results are told in words (`dialects`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico import dialects
from sanic_proxy.providers.straico.tools import Family, Tool, ToolUse, family_of

# Models that refuse the role `system`: its text goes into the first user turn.
_WITHOUT_SYSTEM = frozenset({"claude-haiku-4-5-5"})
# Tuples: a role may be anything, even what has no hash.
_SYSTEM_ROLES = ("system", "developer")
_RESULT_ROLES = ("tool", "function")
_TOOL_FIELDS = frozenset({"tools", "functions", "tool_choice", "function_call"})


def request_body(fields: Mapping[str, Any], upstream_model: str) -> dict[str, Any]:
    """The body for `POST /v2/chat/completions`. Raises InvalidRequest, naming the parameter.

    What would change the answer's shape is refused; what Straico does not know is left out, `stream`
    among it.
    """
    _refuse_other_shapes(fields)
    use = tool_use(fields)
    family = family_of(upstream_model)
    messages = _Conversation(family).turned(fields["messages"])
    if use is not None:
        messages = _with_system(messages, dialects.instructions(use, family=family))
    if upstream_model.lower() in _WITHOUT_SYSTEM:
        messages = _without_system(messages)
    return {"model": upstream_model, "messages": messages, **_numbers(fields)}


def _refuse_other_shapes(fields: Mapping[str, Any]) -> None:
    count = fields.get("n")
    if count is not None and count != 1:
        raise InvalidRequest("Straico gives one answer: `n` must be 1", param="n")
    if fields.get("logprobs"):
        raise InvalidRequest("Straico gives no `logprobs`", param="logprobs")
    modalities = fields.get("modalities")
    if fields.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
        raise InvalidRequest("Straico's chat gives text only, no audio", param="modalities")


def _numbers(fields: Mapping[str, Any]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    temperature = fields.get("temperature")
    if temperature is not None:
        if not _is_number(temperature) or not 0 <= temperature <= 2:
            raise InvalidRequest("`temperature` must be a number from 0 to 2", param="temperature")
        numbers["temperature"] = temperature
    for name in ("max_completion_tokens", "max_tokens"):
        limit = fields.get(name)
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit < 2**31:
            raise InvalidRequest(f"`{name}` must be a whole number above 0", param=name)
        numbers.setdefault("max_tokens", limit)
    return numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Tools


def uses_functions(fields: Mapping[str, Any]) -> bool:
    """Whether the request has the older `functions`, which are answered with a `function_call`."""
    return bool(fields.get("functions")) and not fields.get("tools")


def tool_use(fields: Mapping[str, Any]) -> ToolUse | None:
    """The tools of a request; None if there are none, or none may be called."""
    if _TOOL_FIELDS.isdisjoint(fields):
        return None
    is_older = uses_functions(fields)
    tools = tuple(_functions(fields) if is_older else _tools(fields))
    name = "function_call" if is_older else "tool_choice"
    choice = fields.get(name, "auto") or "auto"
    if choice not in ("none", "auto") and not tools:
        raise InvalidRequest(f"`{name}` is only allowed where tools are given", param=name)
    if not tools or choice == "none":
        return None
    parallel = fields.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise InvalidRequest("`parallel_tool_calls` must be true or false", param="parallel_tool_calls")
    return ToolUse(tools, _choice(choice, tools, name), parallel=parallel is not False and not is_older)


def _tools(fields: Mapping[str, Any]) -> Iterator[Tool]:
    for index, entry in enumerate(_list_of_objects(fields, "tools")):
        function = entry.get("function")
        if entry.get("type", "function") != "function" or not isinstance(function, dict):
            raise InvalidRequest(
                "Only tools of type `function` can be used with Straico", param=f"tools.{index}"
            )
        yield _tool(function, f"tools.{index}.function")


def _functions(fields: Mapping[str, Any]) -> Iterator[Tool]:
    for index, function in enumerate(_list_of_objects(fields, "functions")):
        yield _tool(function, f"functions.{index}")


def _list_of_objects(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries = fields.get(name) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequest(f"`{name}` must be a list of objects", param=name)
    return entries


def _tool(function: Mapping[str, Any], path: str) -> Tool:
    name = function.get("name")
    description = function.get("description") or ""
    parameters = function.get("parameters") or {}
    if not isinstance(name, str) or not name:
        raise InvalidRequest("A function needs a name", param=f"{path}.name")
    if not isinstance(description, str):
        raise InvalidRequest("A function's description must be a string", param=f"{path}.description")
    if not isinstance(parameters, dict):
        raise InvalidRequest("A function's parameters must be a JSON Schema", param=f"{path}.parameters")
    return Tool(name, description, parameters)


def _choice(choice: object, tools: tuple[Tool, ...], param: str) -> Any:
    if choice in ("auto", "required"):
        return choice
    named = choice.get("function", choice) if isinstance(choice, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        raise InvalidRequest(f"`{param}` must be none, auto, required or name one of the tools", param=param)
    return tool


# Messages


class _Conversation:
    """Turns messages one by one, remembering which call each result belongs to."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._past: dict[str, dialects.PastCall] = {}
        self._count = 0

    def turned(self, messages: list[Any]) -> list[dict[str, str]]:
        turned: list[dict[str, str]] = []
        was_result = False
        for index, message in enumerate(messages):
            path = f"messages.{index}"
            if not isinstance(message, dict):
                raise InvalidRequest("A message must be an object", param=path)
            role = message.get("role")
            turned_role = _role(role, path)
            content = self._content(message, path)
            if role in _RESULT_ROLES and was_result:
                # Results that belong together make one turn: roles have to alternate for some models.
                turned[-1]["content"] += f"\n\n{content}"
            elif content is not None:
                turned.append({"role": turned_role, "content": content})
            was_result = role in _RESULT_ROLES
        return turned

    def _content(self, message: Mapping[str, Any], path: str) -> str | None:
        """The text of a message; None for an assistant turn that says nothing."""
        text = _text(message.get("content"), f"{path}.content")
        if message.get("role") in _RESULT_ROLES:
            return self._result(message, text)
        if message.get("role") != "assistant":
            return text
        calls = [*self._calls(message, path)]
        if not calls:
            # Straico answers an empty assistant turn with an error.
            refusal = message.get("refusal")
            return text or (refusal if isinstance(refusal, str) and refusal else None)
        rendered = dialects.render_calls(calls, family=self._family)
        return f"{text}\n\n{rendered}" if text else rendered

    def _calls(self, message: Mapping[str, Any], path: str) -> Iterator[dialects.PastCall]:
        entries = message.get("tool_calls") or []
        older = message.get("function_call")
        if isinstance(older, dict):
            entries = [{"id": older.get("name"), "function": older}]
        if not isinstance(entries, list):
            raise InvalidRequest("`tool_calls` must be a list", param=f"{path}.tool_calls")
        for index, entry in enumerate(entries):
            where = f"{path}.tool_calls.{index}"
            function = entry.get("function") if isinstance(entry, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise InvalidRequest("A tool call needs a function with a name", param=where)
            arguments = function.get("arguments", "{}")
            if not isinstance(arguments, str):
                raise InvalidRequest("The arguments of a tool call must be a string", param=where)
            yield self._remember(str(entry.get("id") or function["name"]), function["name"], arguments)

    def _remember(self, call_id: str, name: str, arguments: str) -> dialects.PastCall:
        label = dialects.label_for(call_id, name, self._count, family=self._family)
        self._count += 1
        self._past[call_id] = call = dialects.PastCall(label, name, arguments)
        return call

    def _result(self, message: Mapping[str, Any], text: str) -> str:
        given = message.get("tool_call_id") or message.get("name") or ""
        call = self._past.get(str(given), dialects.PastCall(str(given), str(message.get("name") or ""), ""))
        return dialects.render_result(call.label, call.name, text, family=self._family)


def _role(role: object, path: str) -> str:
    if not isinstance(role, str):
        raise InvalidRequest("`role` must be a string", param=f"{path}.role")
    if role in _SYSTEM_ROLES:
        return "system"
    if role in _RESULT_ROLES:
        return "user"
    if role in ("user", "assistant"):
        return role
    raise InvalidRequest("`role` must be system, developer, user, assistant or tool", param=f"{path}.role")


def _text(content: object, path: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("`content` must be a string or a list of parts", param=path)
    return "\n".join(_part(part, f"{path}.{index}") for index, part in enumerate(content))


def _part(part: object, path: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
    if kind in ("text", "refusal", "input_text", "output_text") and isinstance(text, str):
        return text
    if kind in ("image_url", "input_audio", "file", "input_image"):
        raise InvalidRequest(f"Straico's chat takes text only, no {kind} parts", param=path)
    raise InvalidRequest("A content part must be an object with a type and its text", param=path)


def _with_system(messages: list[dict[str, str]], text: str) -> list[dict[str, str]]:
    """`text` at the end of the first system message, or as one of its own."""
    for message in messages:
        if message["role"] == "system":
            message["content"] = f"{message['content']}\n\n{text}" if message["content"] else text
            return messages
    return [{"role": "system", "content": text}, *messages]


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    if not system:
        return rest
    if rest and rest[0]["role"] == "user":
        first = {"role": "user", "content": f"{system}\n\n{rest[0]['content']}"}
        return [first, *rest[1:]]
    return [{"role": "user", "content": system}, *rest]
