"""An OpenAI chat request -> the request to Straico and the requirements of its answer. Pure.

Straico supports text in the roles system, user and assistant, one model, `temperature` and `max_tokens`; with
images not even roles. Everything else is described to the model in words, or applied to its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.providers.straico import families
from sanic_proxy.providers.straico.choices import parse_tool_use
from sanic_proxy.providers.straico.conversation import Conversation, add_system_text, merge_system_turns
from sanic_proxy.providers.straico.images import Image
from sanic_proxy.providers.straico.parameters import dropped_params
from sanic_proxy.providers.straico.prompt import render_prompt
from sanic_proxy.providers.straico.stops import parse_stop
from sanic_proxy.providers.straico.tools import Family, Tool, ToolUse, family_of
from sanic_proxy.providers.straico.validation import formats
from sanic_proxy.providers.straico.validation.formats import ResponseFormat, parse_response_format
from sanic_proxy.providers.straico.validation.schemas import Checker, InvalidSchema, compile_schema

# Models that reject the role `system`: its text is put into the first user turn.
_WITHOUT_SYSTEM = frozenset({"claude-haiku-4-5-5"})
# Limit of all strict schemas of a request together, which are compiled before anything is sent.
_MAX_STRICT_NODES = 100_000
_MAX_INTEGER = 2**31 - 1


@dataclass(slots=True)
class UpstreamPlan:
    """The turns that are sent to the model, and the requirements of its answer.

    `numbers` are the numeric parameters of the request: `temperature` and `max_tokens`.
    """

    model: str
    family: Family
    turns: list[dict[str, str]]
    images: Sequence[Image] = ()
    numbers: Mapping[str, object] = field(default_factory=dict)
    tool_use: ToolUse | None = None
    stops: tuple[str, ...] = ()
    response_format: ResponseFormat | None = None
    _checkers: dict[str, Checker | None] = field(default_factory=dict)

    @property
    def is_checked(self) -> bool:
        """Whether an answer can violate the request, so that the turns may be needed for a retry."""
        return self.tool_use is not None or self.response_format is not None

    def checker_for(self, tool: Tool) -> Checker | None:
        """The compiled schema of a tool; None if it has none, or one that cannot be used."""
        if tool.name not in self._checkers:
            try:
                self._checkers[tool.name] = compile_schema(tool.parameters) if tool.parameters else None
            except InvalidSchema:
                self._checkers[tool.name] = None
        return self._checkers[tool.name]

    def compile_strict_schemas(self, tool_use: ToolUse) -> None:
        """Compile the schemas of strict tools. Raises InvalidRequest for one that cannot be used."""
        size = 0
        for tool in tool_use.tools:
            if not tool.is_strict or not tool.parameters:
                continue
            try:
                self._checkers[tool.name] = compiled = compile_schema(tool.parameters)
            except InvalidSchema as exc:
                message = f"The schema of the strict function {tool.name!r} cannot be used: {exc}"
                raise InvalidRequest(message, param=f"{tool.path}.parameters") from None
            size += compiled.size
            if size > _MAX_STRICT_NODES:
                message = (
                    f"The schemas of the strict functions have more than {_MAX_STRICT_NODES} nodes together"
                )
                raise InvalidRequest(message, param=f"{tool.path}.parameters")

    def chat_body(self, turns: Sequence[Mapping[str, str]]) -> dict[str, object]:
        """The body for `POST /v2/chat/completions`."""
        return {"model": self.model, "messages": turns, **self.numbers}

    def prompt_body(
        self, turns: Sequence[dict[str, str]], image_urls: Sequence[str], *, mark: str
    ) -> dict[str, object]:
        """The body for `POST /v1/prompt/completion`, which takes images but no roles."""
        message = render_prompt(turns, mark=mark)
        return {"models": [self.model], "message": message, "images": [*image_urls], **self.numbers}


def build_plan(fields: Mapping[str, object], upstream_model: str) -> UpstreamPlan:
    """Convert a request. Raises InvalidRequest, naming the parameter."""
    try:
        return _build(fields, upstream_model)
    except RecursionError:
        # Describing a schema in words recurses as deep as the schema.
        raise InvalidRequest("A schema in the request is nested too deeply") from None


def _build(fields: JsonMapping, upstream_model: str) -> UpstreamPlan:
    dropped_params(fields)  # raises for parameters that would change the form of the answer
    family = family_of(upstream_model)
    tool_use, response_format = parse_tool_use(fields), parse_response_format(fields)
    conversation = Conversation(family)
    turns = conversation.convert(fields["messages"])
    if tool_use is not None:
        turns = add_system_text(turns, families.instructions(tool_use, family=family))
    if response_format is not None:
        turns = add_system_text(turns, formats.instructions(response_format, may_call=tool_use is not None))
    if upstream_model.lower() in _WITHOUT_SYSTEM:
        turns = merge_system_turns(turns)
    plan = UpstreamPlan(
        upstream_model,
        family,
        turns,
        conversation.images,
        _numeric_parameters(fields),
        tool_use,
        parse_stop(fields),
        response_format,
    )
    if tool_use is not None:
        plan.compile_strict_schemas(tool_use)
    return plan


def _numeric_parameters(fields: JsonMapping) -> dict[str, object]:
    numbers: dict[str, object] = {}
    temperature = fields.get("temperature")
    if temperature is not None:
        if not _is_number(temperature) or not 0 <= temperature <= 2:
            raise InvalidRequest("`temperature` must be a number from 0 to 2", param="temperature")
        numbers["temperature"] = temperature
    for name in ("max_completion_tokens", "max_tokens"):
        limit = fields.get(name)
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= _MAX_INTEGER:
            raise InvalidRequest(f"`{name}` must be an integer from 1 to {_MAX_INTEGER}", param=name)
        numbers.setdefault("max_tokens", limit)
    return numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def retry_turns(turns: Sequence[dict[str, str]], answer: str, retry_prompt: str) -> list[dict[str, str]]:
    """The conversation with the rejected answer and the retry prompt added."""
    if answer.strip():
        return [*turns, {"role": "assistant", "content": answer}, {"role": "user", "content": retry_prompt}]
    if turns and turns[-1]["role"] == "user":
        # Straico rejects empty assistant turns, and some models require alternating roles.
        last = {"role": "user", "content": f"{turns[-1]['content']}\n\n{retry_prompt}"}
        return [*turns[:-1], last]
    return [*turns, {"role": "user", "content": retry_prompt}]
