"""An estimate of a Messages request's tokens, for providers that do not count them. Pure.

| part | tokens |
|---|---|
| text, input of tools, JSON of tool definitions | a token per 3.5 bytes of UTF-8 |
| each message, and each content block | 3 |
| tools, if any | 346: the prompt that Anthropic puts before them |
| image | 1,600: what one of Anthropic's largest size costs (width x height / 750) |
| document in base64 | a token per 25 bytes of the file, at least 1,600 |
| document by URL or id | 1,600 |

Claude's tokenizer is not public. The estimate is meant to be high rather than low for prose and code.
https://platform.claude.com/docs/en/build-with-claude/vision,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
"""

from __future__ import annotations

from math import ceil

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec

BYTES_PER_TOKEN = 3.5
MESSAGE_TOKENS = 3
TOOLS_TOKENS = 346
IMAGE_TOKENS = 1600
DOCUMENT_BYTES_PER_TOKEN = 25


def estimate_tokens(fields: JsonMapping) -> int:
    """The tokens of the input of `fields`, a request to count tokens or to answer."""
    tokens = _content(fields.get("system"))
    messages = fields.get("messages")
    for message in messages if isinstance(messages, list) else ():
        tokens += MESSAGE_TOKENS
        if isinstance(message, dict):
            tokens += _content(message.get("content"))
    if tools := fields.get("tools"):
        tokens += TOOLS_TOKENS + len(codec.dumps(tools)) / BYTES_PER_TOKEN
    return ceil(tokens)


def _content(content: object) -> float:
    if isinstance(content, str):
        return _text(content)
    if not isinstance(content, list):
        return 0
    return sum(_block(block) for block in content if isinstance(block, dict))


def _block(block: JsonMapping) -> float:
    match block.get("type"):
        case "image":
            return IMAGE_TOKENS
        case "document":
            return MESSAGE_TOKENS + _document(block.get("source"))
        case "tool_result":
            content = block.get("content")
            if isinstance(content, list):
                # Results do not nest.
                own = [
                    part for part in content if isinstance(part, dict) and part.get("type") != "tool_result"
                ]
                return MESSAGE_TOKENS + sum(map(_block, own))
            return MESSAGE_TOKENS + _content(content)
        case "text":
            text = block.get("text")
            return MESSAGE_TOKENS + _text(text if isinstance(text, str) else "")
        case _:
            return MESSAGE_TOKENS + len(codec.dumps(block)) / BYTES_PER_TOKEN


def _document(source: object) -> float:
    if not isinstance(source, dict) or not isinstance(data := source.get("data"), str):
        return IMAGE_TOKENS
    if source.get("type") == "text":
        return _text(data)
    return max(IMAGE_TOKENS, len(data) * 3 / 4 / DOCUMENT_BYTES_PER_TOKEN)


def _text(text: str) -> float:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size / BYTES_PER_TOKEN
