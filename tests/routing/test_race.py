"""Second attempts beside slow ones, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.config.hedging import Delay, HedgeSettings
from sanic_proxy.config.model import RequestOptions
from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routing import attempts
from sanic_proxy.routing.breaker import CircuitBreaker
from sanic_proxy.routing.hedging import Hedging
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.targets import Limits, Target
from tests.support import virtual_time
from tests.support.scripted_provider import Outcome, ScriptedProvider, chat_fields, in_turn

AFTER_S = 2.0
# Every request may have a second attempt.
ALWAYS = HedgeSettings(Delay(seconds=AFTER_S), budget=1.0)
DOWN = errors.UpstreamError("down", upstream_status=503)
REFUSED = errors.InvalidRequest("wrong")
LATE = errors.UpstreamTimeout("late")


@dataclass
class Site:
    """A model with a target at each provider, and requests to it one after the other."""

    providers: list[ScriptedProvider]
    settings: HedgeSettings = ALWAYS
    is_streaming: bool = True
    targets: list[Target[ChatProvider]] = field(default_factory=list)

    def __post_init__(self) -> None:
        hedging = Hedging(self.settings)
        for provider in self.providers:
            load = TargetLoad(TargetSettings(provider.name, "x"))
            label = f"{provider.name}/x"
            self.targets.append(
                Target(provider, "x", label, CircuitBreaker(label), load=load, hedging=hedging)
            )

    async def send(self, record: RequestRecord | None = None, **further: Any) -> RequestRecord:
        """One request up to the end of its answer. Raises its failure."""
        record = record or new_record()
        fields = chat_fields(stream=self.is_streaming, **further)
        request = ChatRequest(codec.dumps(fields), fields, "m", "x", self.is_streaming, {}, record)
        if self.is_streaming:
            stream = await attempts.streamed(self.targets, Limits(), request)
            record.first_byte = asyncio.get_running_loop().time()
            async for _ in stream.begun_frames():
                pass
            stream.close()
        else:
            await attempts.whole(self.targets, Limits(), request)
        assert request.provider is not None
        assert request.provider.name == record.provider
        record.finish(())
        return record

    @property
    def in_flight(self) -> list[int]:
        return [target.load.in_flight for target in self.targets if target.load is not None]


def new_record() -> RequestRecord:
    return RequestRecord("id", "POST", "/", client=Client("c", "c"))


def provider(name: str, *outcomes: Outcome) -> ScriptedProvider:
    return ScriptedProvider(name, in_turn(*outcomes))


def route(record: RequestRecord) -> str:
    """The attempts, without their times: these are real ones."""
    return re.sub(r" \d+ms", "", record.route)


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def is_streaming(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_slow_target_loses_to_the_next_one(is_streaming: bool) -> None:
    slow, quick = provider("a", (20.0, "slow")), provider("b", (1.0, "quick"))
    site = Site([slow, quick], is_streaming=is_streaming)

    async def run() -> None:
        began = asyncio.get_running_loop().time()
        record = await site.send()
        assert route(record) == "a/x hedge_lost, b/x ok"
        assert record.provider == "b"
        assert slow.cancelled_at == [pytest.approx(began + AFTER_S + 1.0, abs=0.001)]

    virtual_time.run(run())
    assert site.in_flight == [0, 0]


def test_the_attempt_that_lost_says_nothing_of_its_target(is_streaming: bool) -> None:
    site = Site([provider("a", (20.0, "slow")), provider("b", (1.0, "quick"))], is_streaming=is_streaming)

    async def run() -> None:
        for _ in range(30):
            await site.send()

    virtual_time.run(run())
    assert not any(target.health.is_open for target in site.targets)
    assert not any(target.rate_limit.until for target in site.targets)


def test_a_first_attempt_that_is_quicker_after_all_wins(is_streaming: bool) -> None:
    first, second = provider("a", (3.0, "first")), provider("b", (9.0, "second"))
    site = Site([first, second], is_streaming=is_streaming)
    record = virtual_time.run(site.send())
    assert route(record) == "b/x hedge_lost, a/x ok"
    assert (record.provider, len(second.cancelled_at), site.in_flight) == ("a", 1, [0, 0])


def test_a_quick_answer_has_no_second_attempt(is_streaming: bool) -> None:
    second = provider("b", (1.0, "second"))
    site = Site([provider("a", (1.9, "first")), second], is_streaming=is_streaming)
    assert route(virtual_time.run(site.send())) == "a/x ok"
    assert second.asked == []


def test_the_second_attempt_answers_where_the_first_one_fails(is_streaming: bool) -> None:
    site = Site([provider("a", (3.0, DOWN)), provider("b", (4.0, "yes"))], is_streaming=is_streaming)
    assert route(virtual_time.run(site.send())) == "a/x 503, b/x ok"
    assert site.in_flight == [0, 0]


@pytest.mark.parametrize("failure", [DOWN, REFUSED, LATE], ids=["down", "refused", "late"])
def test_the_first_attempt_goes_on_where_the_second_one_fails(
    is_streaming: bool, failure: errors.ProxyError
) -> None:
    second = provider("b", (1.0, failure))
    site = Site([provider("a", (9.0, "yes")), second], is_streaming=is_streaming)
    record = virtual_time.run(site.send())
    assert [attempt.target for attempt in record.attempts] == ["b/x", "a/x"]
    assert (record.attempts[-1].outcome, len(second.asked)) == ("ok", 1)
    assert site.in_flight == [0, 0]


def test_a_refusal_by_the_first_target_is_the_answer(is_streaming: bool) -> None:
    second = provider("b", (9.0, "never"))
    site = Site([provider("a", (3.0, REFUSED)), second], is_streaming=is_streaming)
    record = new_record()
    with pytest.raises(errors.InvalidRequest):
        virtual_time.run(site.send(record))
    assert [attempt.outcome for attempt in record.attempts] == ["hedge_lost", "invalid_request_error"]
    assert (len(second.cancelled_at), site.in_flight) == (1, [0, 0])


def test_after_two_failures_the_next_target_is_asked(is_streaming: bool) -> None:
    site = Site(
        [provider("a", (3.0, LATE)), provider("b", (4.0, LATE)), provider("c", (9.0, "yes"))],
        is_streaming=is_streaming,
    )
    record = virtual_time.run(site.send())
    assert route(record) == "a/x upstream_timeout, b/x upstream_timeout, c/x ok"


def test_a_target_that_may_have_worked_on_the_request_is_not_asked_twice(is_streaming: bool) -> None:
    second = provider("b", (1.0, LATE))
    site = Site([provider("a", (9.0, LATE)), second], is_streaming=is_streaming)
    with pytest.raises(errors.UpstreamTimeout):
        virtual_time.run(site.send())
    assert len(second.asked) == 1


def test_a_second_target_that_was_down_is_asked_again(is_streaming: bool) -> None:
    second = provider("b", (1.0, DOWN), (1.0, "yes"))
    site = Site([provider("a", (9.0, LATE)), second], is_streaming=is_streaming)
    assert virtual_time.run(site.send()).attempts[-1].target == "b/x"


def test_both_attempts_end_when_the_client_leaves(is_streaming: bool) -> None:
    first, second = provider("a", (20.0, "one")), provider("b", (20.0, "two"))
    site = Site([first, second], is_streaming=is_streaming)
    record = new_record()

    async def run() -> None:
        sending = asyncio.ensure_future(site.send(record))
        await asyncio.sleep(AFTER_S + 1)
        left_at = asyncio.get_running_loop().time()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert first.cancelled_at == second.cancelled_at == [left_at]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(run())
    assert {attempt.outcome for attempt in record.attempts} == {"client_left"}
    assert (len(record.attempts), site.in_flight) == (2, [0, 0])


def test_an_answer_that_comes_at_the_same_moment_is_closed() -> None:
    first, second = provider("a", (AFTER_S + 1, "one")), provider("b", (1.0, "two"))
    site = Site([first, second])
    record = virtual_time.run(site.send())
    assert sorted(attempt.outcome for attempt in record.attempts) == ["hedge_lost", "ok"]
    assert all(source.is_closed for source in (*first.sources, *second.sources))


def test_usage_is_that_of_the_answer_and_of_each_attempt_its_own() -> None:
    first, second = provider("a", (AFTER_S + 1, "one")), provider("b", (1.0, "two"))
    site = Site([first, second], is_streaming=False)
    record = virtual_time.run(site.send())
    lost = next(attempt for attempt in record.attempts if attempt.outcome == "hedge_lost")
    assert record.usage == lost.usage == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def test_an_open_circuit_is_no_target_for_a_second_attempt(is_streaming: bool) -> None:
    second = provider("b", (1.0, "yes"))
    site = Site([provider("a", (9.0, "slow")), second], is_streaming=is_streaming)

    async def run() -> None:
        health = site.targets[1].health
        for _ in range(5):
            health.record_failure(DOWN, "target", asyncio.get_running_loop().time(), health.generation)
        assert health.is_open
        assert route(await site.send()) == "a/x ok"

    virtual_time.run(run())
    assert second.asked == []


def test_a_target_at_its_limit_is_no_target_for_a_second_attempt() -> None:
    second = provider("b", (1.0, "yes"))
    site = Site([provider("a", (9.0, "slow")), second])
    site.targets[1] = replace(site.targets[1], load=TargetLoad(TargetSettings("b", "x", concurrent=1)))

    async def run() -> None:
        load = site.targets[1].load
        assert load is not None
        load.begin(0.0)
        assert route(await site.send()) == "a/x ok"

    virtual_time.run(run())
    assert second.asked == []


@pytest.mark.parametrize(
    "further",
    [
        {"store": True},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"web_search_options": {"search_context_size": "low"}},
        {"include": ["reasoning.encrypted_content"]},
    ],
    ids=["stored", "background", "hosted tool", "search", "encrypted reasoning"],
)
def test_a_request_that_wants_more_than_an_answer_has_no_second_attempt(
    is_streaming: bool, further: dict[str, Any]
) -> None:
    second = provider("b", (1.0, "yes"))
    site = Site([provider("a", (9.0, "slow")), second], is_streaming=is_streaming)
    assert route(virtual_time.run(site.send(**further))) == "a/x ok"
    assert second.asked == []


def test_nor_has_one_whose_target_adds_an_effect() -> None:
    second = provider("b", (1.0, "yes"))
    site = Site([provider("a", (9.0, "slow")), second])
    options = RequestOptions(set_params={"store": True})
    site.targets = [replace(target, options=options) for target in site.targets]
    virtual_time.run(site.send())
    assert second.asked == []


def test_emulated_streams_have_no_second_attempt() -> None:
    second = ScriptedProvider("b", in_turn((1.0, "yes")), "emulated")
    virtual_time.run(Site([provider("a", (9.0, "slow")), second]).send())
    assert second.asked == []


def test_functions_of_the_client_are_no_effect() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]
    site = Site([provider("a", (9.0, "slow")), provider("b", (1.0, "yes"))])
    assert virtual_time.run(site.send(tools=tools, store=False)).provider == "b"


# Of twenty requests one takes ten times as long, wherever it is sent.
USUAL_S = 1.0
SLOW_SHARE = 0.05
SLOWNESS = 10.0


def times_of(settings: HedgeSettings | None, requests: int) -> tuple[list[float], int]:
    """The times to the first content in order, and the number of attempts."""
    chance = random.Random(7)

    def outcome() -> Outcome:
        usual_s = USUAL_S * chance.uniform(0.8, 1.2)
        return (usual_s * SLOWNESS if chance.random() < SLOW_SHARE else usual_s), "yes"

    providers = [ScriptedProvider(name, outcome) for name in ("a", "b")]
    site = Site(providers, settings or ALWAYS)
    if settings is None:
        site.targets = [replace(target, hedging=None) for target in site.targets]

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(requests):
            began = loop.time()
            record = await site.send()
            assert record.first_byte is not None
            times.append(record.first_byte - began)
        return sorted(times)

    return virtual_time.run(run()), sum(len(provider.asked) for provider in providers)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[int(share * len(ordered)) - 1]


def test_the_slowest_answers_come_sooner_within_the_budget() -> None:
    requests, budget = 1500, 0.06
    plain, _ = times_of(None, requests)
    hedged, asked = times_of(HedgeSettings(budget=budget), requests)
    assert percentile(plain, 0.99) > 8 * USUAL_S
    assert percentile(hedged, 0.99) < 0.4 * percentile(plain, 0.99)
    assert asked - requests <= budget * requests


def test_a_budget_is_kept_at_any_time() -> None:
    second = provider("b", (1.0, "yes"))
    site = Site([provider("a", (9.0, "slow")), second], HedgeSettings(Delay(seconds=AFTER_S), 0.03))

    async def run() -> None:
        for count in itertools.count(1):
            await site.send()
            assert len(second.asked) <= 0.03 * count + 1e-9
            if count == 200:
                return

    virtual_time.run(run())
    assert len(second.asked) == 6
