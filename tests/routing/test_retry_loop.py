"""The time that a client waits, as it says in its request."""

from __future__ import annotations

import asyncio

import pytest

from sanic_proxy.errors import CallerTimeout, UpstreamError, UpstreamTimeout
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routing import attempts
from sanic_proxy.routing.retry_loop import CallerDeadline, before, caller_deadline
from sanic_proxy.routing.targets import Limits, Target
from tests.support import virtual_time
from tests.support.scripted_provider import ScriptedProvider, chat_fields, in_turn

NODE, PYTHON = "x-stainless-timeout", "x-stainless-read-timeout"


def deadline(headers: dict[str, str]) -> CallerDeadline | None:
    async def run() -> CallerDeadline | None:
        found = caller_deadline(headers)
        assert found is None or found.at == asyncio.get_running_loop().time() + found.due_s
        return found

    return virtual_time.run(run())


@pytest.mark.parametrize(
    ("headers", "due_s", "header"),
    [
        ({NODE: "600"}, 599.0, NODE),
        ({PYTHON: "10.0"}, 9.5, PYTHON),
        ({PYTHON: "0.1"}, 0.095, PYTHON),
        ({NODE: "600", PYTHON: "10"}, 9.5, PYTHON),
        ({NODE: "10", PYTHON: "600"}, 9.5, NODE),
        ({NODE: "never", PYTHON: "10"}, 9.5, PYTHON),
    ],
)
def test_the_answer_is_due_before_the_client_gives_up(
    headers: dict[str, str], due_s: float, header: str
) -> None:
    found = deadline(headers)
    assert found is not None
    assert found.due_s == pytest.approx(due_s)
    assert found.header == header


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e9", "ten", "10 s", "None", "\u0661x"])
def test_a_value_that_is_no_time_is_ignored(value: str) -> None:
    assert deadline({PYTHON: value}) is None
    assert deadline({NODE: value}) is None


@pytest.mark.parametrize(
    ("content_s", "caller_s", "kind"),
    [(1.0, 2.0, UpstreamTimeout), (2.0, 1.0, CallerTimeout), (0.0, 1.0, CallerTimeout)],
)
def test_the_limit_that_is_over_first_is_the_failure(
    content_s: float, caller_s: float, kind: type[Exception]
) -> None:
    async def run() -> None:
        caller = CallerDeadline(asyncio.get_running_loop().time() + caller_s, caller_s, 7.0, PYTHON)
        with pytest.raises(kind, match=r"2 s|1 s|7 s.*x-stainless-read-timeout"):
            await before(asyncio.sleep(100), content_s=content_s, caller=caller)

    virtual_time.run(run())


def test_a_timeout_of_the_call_itself_passes() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    async def run() -> None:
        with pytest.raises(TimeoutError, match="its own"):
            await before(fail(), content_s=5.0)
        assert await before(asyncio.sleep(1, "done"), content_s=5.0) == "done"

    virtual_time.run(run())


@pytest.mark.row(79)
@pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "whole"])
def test_the_clients_time_is_that_of_all_attempts_together(is_streaming: bool) -> None:
    down = UpstreamError("down", upstream_status=503)
    first, second = (
        ScriptedProvider("a", in_turn((3.0, down))),
        ScriptedProvider("b", in_turn((100.0, "late"))),
    )
    targets: list[Target[ChatProvider]] = [Target(first, "x", "a/x"), Target(second, "x", "b/x")]
    fields = chat_fields(stream=is_streaming)
    record = RequestRecord("id", "POST", "/")
    request = ChatRequest(codec.dumps(fields), fields, "m", "x", is_streaming, {PYTHON: "10"}, record)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        send = attempts.streamed if is_streaming else attempts.whole
        with pytest.raises(CallerTimeout, match=r"10 s.*x-stainless-read-timeout"):
            await send(targets, Limits(), request)
        return loop.time() - began

    assert virtual_time.run(run()) == pytest.approx(9.5, abs=0.001)
    assert [attempt.target for attempt in record.attempts] == ["a/x", "a/x", "b/x"]
