"""Whole answers of Gemini's API, read and written. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks
from sanic_proxy.streams.gemini_usage import usage_fields, usage_of
from sanic_proxy.translation.conversation import (
    Answer,
    Conversation,
    FinishReason,
    Other,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from sanic_proxy.translation.gemini import thoughts, values
from sanic_proxy.translation.gemini.values import text_of
from sanic_proxy.translation.messages.values import arguments_of, tool_input


def read(fields: JsonMapping) -> Answer:
    """See `Format.read_answer`. Signatures get their origin from the caller, who knows the provider."""
    candidates = fields.get("candidates")
    candidate = candidates[0] if isinstance(candidates, list) and candidates else None
    if not isinstance(candidate, dict):
        if not is_blocked(fields):
            raise errors.UpstreamBadResponse("The provider's answer has no candidate")
        candidate = {"finishReason": "SAFETY"}
    parts = _parts(candidate)
    reason = text_of(candidate, "finishReason")
    if not parts and reason in values.FAILED_CALLS:
        raise values.failed_call(reason)
    usage = fields.get("usageMetadata")
    return Answer(
        id=text_of(fields, "responseId"),
        model=text_of(fields, "modelVersion"),
        created=chunks.now(),
        parts=parts,
        finish=values.finish_of(reason, has_calls=any(isinstance(part, ToolCall) for part in parts)),
        usage=usage_of(usage) if isinstance(usage, dict) else None,
    )


def is_blocked(fields: JsonMapping) -> bool:
    """Whether the prompt was refused: there are no candidates then."""
    feedback = fields.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def parts_of(candidate: JsonMapping) -> Iterator[Json]:
    """The parts of a candidate as a provider writes them."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    yield from (part for part in (parts if isinstance(parts, list) else ()) if isinstance(part, dict))


def call_id(call: JsonMapping) -> str:
    """The id of a provider's call, or a new one."""
    return text_of(call, "id") or chunks.new_call_id()


def call_arguments(call: JsonMapping) -> str:
    args = call.get("args")
    return arguments_of(args if isinstance(args, dict) else {})


def _parts(candidate: JsonMapping) -> list[Part]:
    """Neighbouring texts are joined; a signature makes the thought before it complete."""
    parts: list[Part] = []
    for fields in parts_of(candidate):
        part, signature = _part(fields), text_of(fields, "thoughtSignature")
        last = parts[-1] if parts else None
        if isinstance(part, Reasoning):
            if isinstance(last, Reasoning) and not last.signature:
                last.text += part.text
                last.signature = signature
            else:
                parts.append(Reasoning(part.text, signature, is_summary=True))
            continue
        if signature and isinstance(last, Reasoning) and not last.signature:
            last.signature = signature
        elif signature:
            parts.append(Reasoning("", signature))
        last = parts[-1] if parts else None
        if isinstance(part, Text) and isinstance(last, Text):
            last.text += part.text
        elif not (isinstance(part, Text) and not part.text):
            parts.append(part)
    return parts


def _part(fields: Json) -> Part:
    if fields.get("thought") is True:
        return Reasoning(text_of(fields, "text"))
    if isinstance(fields.get("text"), str):
        return Text(fields["text"])
    if isinstance(call := fields.get("functionCall"), dict):
        return ToolCall(call_id(call), text_of(call, "name"), call_arguments(call))
    kind = next((name for name in fields if name != "thoughtSignature"), "")
    return Other(kind, fields) if kind else Text("")


def write(answer: Answer, asked: Conversation) -> Json:
    """See `Format.write_answer`. `asked` has the model's name where the provider states none."""
    parts = list(_written_parts(answer.parts, asked))
    written = response(parts, answer.model or asked.model, answer.id, finish=answer.finish)
    written["usageMetadata"] = usage_fields(answer.usage or Usage())
    return written


def _written_parts(parts: list[Part], asked: Conversation) -> Iterator[Json]:
    carrier = SignatureCarrier()
    for part in parts:
        match part:
            case Reasoning():
                if part.text and shows_thoughts(asked):
                    yield thought_part(part.text)
                carrier.add(part, is_shown=shows_thoughts(asked))
            case Text() | Refusal():
                if part.text:
                    yield carrier.signed({"text": part.text})
            case ToolCall():
                yield carrier.signed(call_part(part))
            case _:
                pass
    yield from carrier.rest()


class SignatureCarrier:
    """The reasoning that waits for a part which can hold its signature; see `thoughts`."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[Reasoning] = []

    def add(self, piece: Reasoning, *, is_shown: bool) -> None:
        """Add a piece. Text that the client does not want to see is not sent to it in another form either."""
        if is_shown or not piece.text or piece.is_redacted:
            self._pieces.append(piece)

    def signed(self, part: Json) -> Json:
        """`part` with the signature that waits."""
        signature = thoughts.signature_of(self._pieces)
        self._pieces.clear()
        return part if signature is None else {**part, "thoughtSignature": signature}

    def rest(self) -> Iterator[Json]:
        """A part for the signature that still waits at the end of an answer."""
        part = self.signed({"text": ""})
        if "thoughtSignature" in part:
            yield part


def shows_thoughts(asked: Conversation) -> bool:
    """Whether the client wants to see the model's thoughts."""
    return asked.reasoning is not None and asked.reasoning.summary is not None


def thought_part(text: str) -> Json:
    return {"text": text, "thought": True}


def call_part(call: ToolCall) -> Json:
    return {"functionCall": {"id": call.id, "name": call.name, "args": tool_input(call)}}


def response(parts: list[Json], model: str, id_: str, *, finish: FinishReason | None = None) -> Json:
    """A response with one candidate, as a whole answer or as one frame of a stream."""
    candidate: Json = {"content": {"parts": parts or [{"text": ""}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = values.reason_of(finish)
    return {"candidates": [candidate], "modelVersion": model, "responseId": id_ or chunks.new_completion_id()}
