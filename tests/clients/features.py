"""The features that each client is tested for, and what the upstream must have received. Pure.

A driver judges what its client returned; the rest is judged here: whether a tool's result came back
under its call's id, the number and times of requests, and whether an upstream request outlived its client.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.upstream import Seen

# Shared with the drivers, which can import nothing from here: they get it as `$FACTS`.
WORDS = ("Grüße ", "aus ", "東京 ", "🌍")
TEXT = "".join(WORDS)
USAGE: Mapping[str, int] = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
TOOL = "get_weather"
RESULT = "fourteen degrees in "
FINAL = "It is mild there."
CITIES = ("Oslo", "Lima")
TRIP: Mapping[str, Any] = {"city": "Oslo", "days": 3}
VECTORS = ((0.25, -0.5, 1.0), (0.5, 0.125, -2.0))
STOP = "!!"
THOUGHT = "Let me see."
IMAGE = "data:image/png;base64,cG5n"
# Longer than any client's own delay before its first retry.
RETRY_AFTER_S = 3
# The proxy's message for a stream that broke off.
BROKEN = "was lost before"
FACTS: Mapping[str, Any] = {
    "text": TEXT,
    "usage": USAGE,
    "tool": TOOL,
    "result": RESULT,
    "final": FINAL,
    "cities": CITIES,
    "trip": TRIP,
    "vectors": VECTORS,
    "stop": STOP,
    "thought": THOUGHT,
    "broken": BROKEN,
    "retry_after_s": RETRY_AFTER_S,
    "models": {"groq": "groq/small", "straico": "straico/openai/big"},
}
# The pass-through upstream's own; through Straico the proxy makes them up.
CALL_IDS = ("call_upstream_1", "call_upstream_2")

# From the moment a client leaves until its upstream connection has to be closed.
LEAVE_WITHIN_S = 2.0


@dataclass
class Noticed:
    """What the upstream saw while one client did one thing. Times are the wall clock's, in seconds."""

    seen: list[Seen] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    closed_at: float | None = None


Judge = Callable[[Noticed, str, float | None], str]
"""Noticed, provider, when the client left -> what is wrong; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of the table, or two: each provider it makes sense with has one.

    With `clients` it is for these only.
    """

    name: str
    about: str
    judge: Judge
    providers: Sequence[str] = ("groq", "straico")
    clients: Sequence[str] = ()


def _requested(noticed: Noticed, _provider: str, _left_at: float | None) -> str:
    return "" if noticed.seen else "the upstream received no request"


def _not_requested(noticed: Noticed, _provider: str, _left_at: float | None) -> str:
    return f"the upstream received {len(noticed.seen)} requests" if noticed.seen else ""


def _requested_once(noticed: Noticed, _provider: str, _left_at: float | None) -> str:
    count = len(noticed.seen)
    return "" if count == 1 else f"the upstream received {count} requests instead of 1"


def _streamed(noticed: Noticed, provider: str, _left_at: float | None) -> str:
    if not noticed.seen:
        return "the upstream received no request"
    if provider == "groq" and not noticed.seen[-1].json.get("stream"):
        return "the client did not request a stream"
    return ""


def _waited(noticed: Noticed, _provider: str, _left_at: float | None) -> str:
    if len(noticed.arrived_at) != 2:
        return f"the upstream received {len(noticed.arrived_at)} requests instead of 2"
    gap = noticed.arrived_at[1] - noticed.arrived_at[0]
    # A client's timer may be a little early, and some add to the wait so that not all come back at once.
    if not 0.95 * RETRY_AFTER_S <= gap <= 2 * RETRY_AFTER_S:
        return f"repeated after {gap:.2f} s, Retry-After was {RETRY_AFTER_S}"
    return ""


def _left(noticed: Noticed, _provider: str, left_at: float | None) -> str:
    if not noticed.seen:
        return "the upstream received no request"
    if left_at is None:
        return "the driver did not report when the client left"
    if noticed.closed_at is None:
        return f"the upstream connection is still open {LEAVE_WITHIN_S:.0f} s later"
    late = noticed.closed_at - left_at
    return "" if late <= LEAVE_WITHIN_S else f"the upstream connection was closed {late:.1f} s later"


def _schema_passed(noticed: Noticed, provider: str, _left_at: float | None) -> str:
    """The pass-through upstream must get the schema; the instructions for Straico are up to the proxy."""
    if not noticed.seen:
        return "the upstream received no request"
    wanted = noticed.seen[-1].json.get("response_format") or {}
    if provider == "groq" and wanted.get("type") != "json_schema":
        return f"response_format is {wanted or 'missing'}"
    properties = (wanted.get("json_schema") or {}).get("schema", {}).get("properties", {})
    if provider == "groq" and set(properties) != set(TRIP):
        return f"the schema has the properties {sorted(properties)}"
    return ""


def _results(cities: Sequence[str], *, streaming: bool = True) -> Judge:
    def judge(noticed: Noticed, provider: str, _left_at: float | None) -> str:
        if provider == "groq" and any(bool(seen.json.get("stream")) != streaming for seen in noticed.seen):
            return f"the client requested {'a whole answer' if streaming else 'a stream'}"
        if len(noticed.seen) != 2:
            return f"the upstream received {len(noticed.seen)} requests instead of 2"
        last = noticed.seen[-1].json["messages"]
        found = straico_results(last) if provider == "straico" else native_results(last)
        wanted = straico_calls(last) if provider == "straico" else dict(zip(CALL_IDS, cities, strict=False))
        if sorted(wanted.values()) != sorted(cities):
            return f"the second request has calls for {sorted(wanted.values())}"
        missing = [city for call, city in wanted.items() if RESULT + city not in found.get(call, "")]
        return f"the second request lacks the result for {', '.join(missing)}" if missing else ""

    return judge


def native_results(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Call id -> result, of OpenAI's messages."""
    return {
        str(message.get("tool_call_id")): _text(message.get("content"))
        for message in messages
        if message.get("role") == "tool"
    }


def _text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def straico_results(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Call id -> result, as the proxy writes them into prompts for Straico."""
    prompt = "\n".join(message["content"] for message in messages if message["role"] == "user")
    pattern = r'(?s)<tool_response id="([^"]+)"[^>]*>\n(.*?)\n</tool_response>'
    return dict(re.findall(pattern, prompt))


def straico_calls(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Call id -> its city, as the proxy writes calls into prompts for Straico."""
    prompt = "\n".join(message["content"] for message in messages if message["role"] == "assistant")
    called = re.search(r"(?s)<tool_calls>\n(.*?)\n</tool_calls>", prompt)
    calls = json.loads(called[1]) if called else []
    return {call["id"]: call["arguments"]["city"] for call in calls}


def _stop_passed(noticed: Noticed, provider: str, _left_at: float | None) -> str:
    """Straico has no stop words: the proxy looks for them itself."""
    if not noticed.seen:
        return "the upstream received no request"
    wanted = noticed.seen[-1].json.get("stop")
    return "" if provider == "straico" or wanted == [STOP] else f"stop is {wanted!r}"


def _image_passed(noticed: Noticed, _provider: str, _left_at: float | None) -> str:
    if not noticed.seen:
        return "the upstream received no request"
    content = noticed.seen[-1].json["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return "" if urls == [IMAGE] else f"the images are {urls}"


_FURTHER = ("anthropic-python", "google-genai")
FEATURES: tuple[Feature, ...] = (
    Feature("text", "a whole answer: text, usage, finish reason", _requested),
    Feature("stream", "a streamed answer: text, usage, finish reason", _streamed),
    Feature("slow", "a streamed answer with heartbeats before it and within", _streamed),
    Feature(
        "tools", "a tool is called, its result goes back, text follows", _results(CITIES[:1], streaming=False)
    ),
    Feature("tools-stream", "the same, streamed", _results(CITIES[:1])),
    Feature("parallel", "two calls in one streamed answer", _results(CITIES)),
    Feature("interleaved", "the same, in pieces that take turns", _results(CITIES), ("groq",)),
    Feature("structured", "an answer as an object of the client's own type", _schema_passed),
    Feature("wrong-key", "401 at the proxy: the client's error for it", _not_requested, ("groq",)),
    Feature("429-retried", "429 with Retry-After: retried after the wait, and answered", _waited),
    Feature("429-raised", "429 with the client's repeats off: its error for it", _requested_once),
    Feature("500", "500: the client's error for it", _requested),
    Feature("cut", "a stream that breaks off: an error, never a complete answer", _requested),
    Feature("cancel", f"the client leaves: upstream closed within {LEAVE_WITHIN_S:.0f} s", _left),
    Feature("embeddings", "two vectors", _requested, ("groq",)),
    Feature("models", "the list of models", lambda *_: ""),
    Feature("count-tokens", "a number of tokens", _not_requested, clients=_FURTHER),
    Feature("stop", "a word that ends the answer", _stop_passed, clients=_FURTHER),
    Feature("image", "an image in the question", _image_passed, ("groq",), clients=_FURTHER),
    Feature(
        "reasoning", "reasoning, which goes back with the answer", _requested, ("groq",), clients=_FURTHER
    ),
)
