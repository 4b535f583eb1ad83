"""Requests for the rest of a chat's answer: which may be made, and what they look like. Pure.

A provider that can continue an answer gets its beginning as the last message, of the role `assistant`, and a
mark that this message is to be continued instead of answered. The mark differs:

- `assistant`: none (llama.cpp, Anthropic's models up to Claude 4.5, many models behind OpenRouter)
- `prefix`: `"prefix": true` in the message (Mistral; DeepSeek with the base URL https://api.deepseek.com/beta)
- `partial`: `"partial": true` in the message (Moonshot, DashScope)
- `continue_final_message`: the parameters `continue_final_message` and `add_generation_prompt` (vLLM, SGLang)
"""

from __future__ import annotations

from sanic_proxy.config.saving import Continuation
from sanic_proxy.json_types import Json, JsonMapping

# Parameters that limit what a server's model may write: half of it does not fit another beginning.
_STRUCTURED = (
    "ebnf",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "regex",
    "structured_outputs",
)
_LIMITS = ("max_tokens", "max_completion_tokens")


def may_be_saved(fields: JsonMapping) -> bool:
    """Whether the answer to a chat request may be put together from two attempts.

    Not one in a given structure, with logprobs, or of several choices.
    """
    response_format = fields.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    return (
        kind in (None, "text")
        and fields.get("n") in (None, 1)
        and not fields.get("logprobs")
        and not any(fields.get(name) for name in _STRUCTURED)
    )


def continuing(fields: JsonMapping, text: str, how: Continuation, *, tokens: int) -> Json | None:
    """The request for the rest of an answer that begins with `text`; None where it cannot be made.

    At least `tokens` of the client's limit for the answer have been used. White space at the end of the text
    is left out: some providers reject it, and it would not begin a token of the rest.
    """
    messages = fields.get("messages")
    if not how or not text.strip() or not isinstance(messages, list) or not messages:
        return None
    message: Json = {"role": "assistant", "content": ""}
    *before, last = messages
    if isinstance(last, dict) and last.get("role") == "assistant":
        message, messages = last, before
    begun = message.get("content")
    if not isinstance(begun, str) or message.get("tool_calls"):
        return None
    message = {**message, "content": begun + text.rstrip()}
    changed = dict(fields)
    if how == "continue_final_message":
        changed |= {"continue_final_message": True, "add_generation_prompt": False}
    elif how != "assistant":
        message[how] = True
    changed["messages"] = [*messages, message]
    for name in _LIMITS:
        limit = fields.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool):
            changed[name] = max(1, limit - tokens)
    return changed
