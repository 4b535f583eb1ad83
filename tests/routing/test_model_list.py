"""The list of models, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from typing_extensions import override

from sanic_proxy.config.model import ModelSettings
from sanic_proxy.config.prices import Prices
from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import NotFound, ProxyError, UpstreamConnectFailed
from sanic_proxy.providers.base import Answer, ChatProvider, ChatRequest, ProviderKind, WholeAnswer
from sanic_proxy.routing import model_list
from sanic_proxy.routing.model_list import ModelList
from sanic_proxy.streams.stream import Stream


class Scripted(ChatProvider):
    """A provider that only lists models, or fails to."""

    def __init__(self, name: str, *answers: list[str] | ProxyError) -> None:
        self.name = name
        self.answers = list(answers)
        self.calls = 0

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "native"

    @override
    async def list_models(self) -> list[dict[str, Any]]:
        self.calls += 1
        answer = self.answers.pop(0)
        if isinstance(answer, ProxyError):
            raise answer
        return [{"id": model} for model in answer]

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        raise NotImplementedError

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        raise NotImplementedError

    @override
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        raise NotImplementedError


def named(name: str, *targets: TargetSettings, hidden: bool = False) -> ModelSettings:
    return ModelSettings(name, targets or (TargetSettings("a", "x"),), hidden=hidden)


def ids(models: ModelList) -> list[str]:
    return [entry["id"] for entry in asyncio.run(models.all())]


def test_ids_carry_the_providers_name_where_they_must() -> None:
    assert ids(ModelList([Scripted("a", ["x/y"])], prefixed=True)) == ["a/x/y"]
    assert ids(ModelList([Scripted("a", ["x/y"])], prefixed=False)) == ["x/y"]


def test_a_list_is_fetched_once_while_it_is_fresh() -> None:
    provider = Scripted("a", ["x"])
    models = ModelList([provider], prefixed=False)

    async def several() -> None:
        await asyncio.gather(*(models.all() for _ in range(5)))

    asyncio.run(several())
    assert provider.calls == 1


def test_a_stale_list_is_better_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "TTL_S", 0.0)
    provider = Scripted("a", ["x"], UpstreamConnectFailed("down"))
    models = ModelList([provider], prefixed=False)
    assert ids(models) == ["x"]
    assert ids(models) == ["x"]
    assert ids(models) == ["x"]
    assert provider.calls == 2


def test_a_single_provider_that_is_down_is_an_error() -> None:
    with pytest.raises(UpstreamConnectFailed):
        ids(ModelList([Scripted("a", UpstreamConnectFailed("down"))], prefixed=False))


def test_one_of_several_that_is_down_is_left_out() -> None:
    down = Scripted("b", UpstreamConnectFailed("down"))
    assert ids(ModelList([Scripted("a", ["x"]), down], prefixed=True)) == ["a/x"]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_the_only_provider_may_have_no_list(status: int, caplog: pytest.LogCaptureFixture) -> None:
    missing = NotFound("nothing here")
    missing.upstream_status = status
    scripted = Scripted("a", missing)
    listed = ModelList([scripted], prefixed=True)
    assert ids(listed) == []
    assert ids(listed) == []
    assert scripted.calls == 1
    assert "a has no model list" in caplog.text


def test_an_id_is_listed_once() -> None:
    first, second = Scripted("a", ["x"]), Scripted("b", ["x"])
    assert ids(ModelList([first, second], prefixed=False, models=[named("x")])) == ["x"]


def test_a_hidden_name_is_not_listed() -> None:
    models = [named("x"), named("y", hidden=True), named("z*", hidden=True)]
    assert ids(ModelList([], prefixed=True, models=models)) == ["x"]


def test_a_name_with_a_star_stands_for_the_models_that_it_matches() -> None:
    models = [
        named("mine/*", TargetSettings("a", "gpt-*")),
        named("fixed*", TargetSettings("a", "gpt-4")),
        named("other/*", TargetSettings("c", "*")),
    ]
    provider = Scripted("a", ["gpt-4", "llama"])
    assert ids(ModelList([], prefixed=False, models=models, matched=[provider])) == ["mine/4"]
    provider = Scripted("a", ["gpt-4", "llama"])
    assert ids(ModelList([provider], prefixed=True, models=models)) == ["mine/4", "a/gpt-4", "a/llama"]


def test_an_own_name_shows_what_is_known_of_its_first_target() -> None:
    target = TargetSettings(
        "a", "x", context_window=128000, prices=Prices(input=2.5, output=10, cached_input=0.125)
    )
    (entry,) = ModelList([], prefixed=True, models=[named("fast", target)]).known()
    assert entry == {
        "id": "fast",
        "object": "model",
        "created": 0,
        "owned_by": "sanic-proxy",
        "context_window": 128000,
        "context_length": 128000,
        "pricing": {"prompt": "0.0000025", "completion": "0.00001", "input_cache_read": "0.000000125"},
    }


class Slow(Scripted):
    """It lists its models when `answers_now` is set."""

    def __init__(self, name: str, *answers: list[str] | ProxyError) -> None:
        super().__init__(name, *answers)
        self.answers_now = asyncio.Event()

    @override
    async def list_models(self) -> list[dict[str, Any]]:
        await self.answers_now.wait()
        return await super().list_models()


async def turns() -> None:
    """More turns of the loop than a refresh takes."""
    for _ in range(20):
        await asyncio.sleep(0)


def listed_ids(models: ModelList) -> Coroutine[Any, Any, list[str]]:
    async def found() -> list[str]:
        return [entry["id"] for entry in await models.listed()]

    return found()


def test_only_the_first_requests_wait_for_a_silent_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        slow = Slow("b", ["y"])
        models = ModelList([Scripted("a", ["x"]), slow], prefixed=True)
        assert await listed_ids(models) == ["a/x"]
        monkeypatch.setattr(model_list, "FIRST_WAIT_S", 1e9)
        assert await listed_ids(models) == ["a/x"]  # the wait was for all of the first requests together
        slow.answers_now.set()
        await turns()
        assert await listed_ids(models) == ["a/x", "b/y"]

    monkeypatch.setattr(model_list, "FIRST_WAIT_S", 0.02)
    asyncio.run(scenario())


def test_a_stale_list_is_refreshed_behind_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        slow = Slow("a", ["x"], ["x", "y"])
        slow.answers_now.set()
        models = ModelList([slow], prefixed=False)
        assert await listed_ids(models) == ["x"]
        slow.answers_now.clear()
        assert await listed_ids(models) == ["x"]
        monkeypatch.setattr(model_list, "TTL_S", 1e9)
        slow.answers_now.set()
        await turns()
        assert await listed_ids(models) == ["x", "y"]

    monkeypatch.setattr(model_list, "TTL_S", 0.0)
    asyncio.run(scenario())


def test_a_refresh_ends_with_the_worker() -> None:
    async def scenario() -> None:
        models = ModelList([Slow("a", ["x"]), Scripted("b", ["y"])], prefixed=True)
        task = asyncio.create_task(models.listed())
        await turns()
        await models.aclose()
        assert [entry["id"] for entry in await task] == ["b/y"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
