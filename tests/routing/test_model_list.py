"""The list of models, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from typing_extensions import override

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
    assert ids(ModelList([first, second], prefixed=False, names=["x"])) == ["x"]
