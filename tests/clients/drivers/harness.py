"""What all Python drivers share. Standard library only: each runs in its client's own environment.

A driver reads a feature per line, lets its client do it, and answers with a line: `ok`, and `why` not.
A feature is a function that raises where its client returned anything but what the upstream had sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    feature: str
    provider: str
    model: str


REQUEST_TIMEOUT_S = 60.0
FACTS: Mapping[str, Any] = json.loads(os.environ["FACTS"])
# What it returns is of no interest, but for a time: then the client left.
Feature = Callable[[Task], object]
Kinds = type[BaseException] | tuple[type[BaseException], ...]


def check(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def check_usage(prompt: object, completion: object) -> None:
    usage = FACTS["usage"]
    check((prompt, completion), (usage["prompt_tokens"], usage["completion_tokens"]), "usage")


def raised(kinds: Kinds, act: Callable[[], object]) -> Any:
    """The exception of one of `kinds` that `act` has to raise."""
    try:
        result = act()
    except kinds as exc:
        return exc
    raise AssertionError(f"no exception, but {result!r}")


def raised_as_broken(kinds: Kinds, read: Callable[[], object]) -> None:
    """`read` has to raise, with the proxy's message for a stream that broke off."""
    message = str(raised(kinds, read))
    if FACTS["broken"] not in message:
        raise AssertionError(f"unexpected message {message[-200:]!r}")


def now() -> float:
    """The wall clock, which the runner can compare with its own."""
    return time.time()


def leave_once_requested(read: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Run `read` until the upstream has its request, and cancel it; when that was."""

    def wait() -> None:
        until = time.monotonic() + REQUEST_TIMEOUT_S
        while not Path(FACTS["requested_file"]).exists():
            if time.monotonic() > until:
                raise AssertionError("the upstream received no request")
            time.sleep(0.05)

    async def leave() -> float:
        reading = asyncio.create_task(read())
        await asyncio.to_thread(wait)
        left_at = now()
        reading.cancel()
        await asyncio.wait([reading])
        return left_at

    return asyncio.run(leave())


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"{FACTS['result']}{city}"


# As OpenAI's API has it, for clients that take it so.
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": FACTS["tool"],
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TRIP_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def serve(features: Mapping[str, Feature]) -> None:
    """Do one feature after the other, until the runner has no more."""
    # The clients may print what they like: only the answers go to the runner.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(report: Mapping[str, Any]) -> None:
        answers.write(json.dumps(report) + "\n")
        answers.flush()

    answer({"ready": True})
    for line in sys.stdin:
        task = Task(**json.loads(line))
        report: dict[str, Any] = {"feature": task.feature, "provider": task.provider, "ok": True, "why": ""}
        try:
            result = features[task.feature](task)
            if isinstance(result, float):
                report["left_at"] = result
        except Exception as exc:  # noqa: BLE001 - every exception of a client is a result
            report |= {"ok": False, "why": f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"}
        answer(report)
