"""Requests and streams of Gemini's API for tests, judged by Google's own types.

`google-genai` needs a newer websockets than pytest-sanic, so its types are here as JSON Schemas:
`tests/data/gemini.json` was made by pydantic of those of version 3.6.1, which allow no further fields. The
request is that of the REST API: contents, `Tool`, `ToolConfig`, `GenerationConfig` and a `Content`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs

from sanic_proxy.streams import sse

Json = dict[str, Any]

_SCHEMAS = json.loads((Path(__file__).parents[1] / "data" / "gemini.json").read_text("utf-8"))
_REQUEST = jsonschema_rs.Draft202012Validator(_SCHEMAS["request"])
_RESPONSE = jsonschema_rs.Draft202012Validator(_SCHEMAS["response"])


def judged_request(fields: Json) -> Json:
    """`fields`, if they are a request."""
    _REQUEST.validate(fields)
    return fields


def judged(response: Json) -> Json:
    """`response`, if it is one."""
    _RESPONSE.validate(response)
    return response


def judged_stream(frames: bytes) -> list[Json]:
    """The responses of a stream, if they are valid and only the last one has a finish reason and usage."""
    assert frames.endswith(b"\n\n")
    responses = [judged(json.loads(frame.payload)) for frame in sse.FrameSplitter().feed(frames)]
    assert not any("finishReason" in response["candidates"][0] for response in responses[:-1])
    assert responses[-1]["candidates"][0]["finishReason"]
    assert responses[-1]["usageMetadata"]
    assert all(response["candidates"][0]["content"]["parts"] for response in responses)
    return responses


def parts_of(responses: list[Json]) -> list[Json]:
    """The parts of a stream, without texts that have no characters."""
    parts = [part for response in responses for part in response["candidates"][0]["content"]["parts"]]
    return [part for part in parts if part != {"text": ""}]


def text_of(responses: list[Json]) -> str:
    return "".join(part["text"] for part in parts_of(responses) if "text" in part and not part.get("thought"))


def response(*parts: Json, finish: str | None = None, **fields: Any) -> Json:
    """A response as Google writes it."""
    candidate: Json = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **fields}


def frame(*parts: Json, finish: str | None = None, end: str = "\r\n\r\n", **fields: Any) -> bytes:
    """One frame of a stream, with the line ends of Google's."""
    return f"data: {json.dumps(response(*parts, finish=finish, **fields), ensure_ascii=False)}{end}".encode()
