"""Targets that an operator has switched off: which names match, and who learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.switches import MIGRATION, TargetSwitches
from sanic_proxy.routing.targets import Limits, RetryState, Target
from sanic_proxy.state_store.base import StateStore, Work
from sanic_proxy.state_store.sqlite import SQLiteStore
from tests.support.load import eventually

T = TypeVar("T")


def store(directory: Path) -> SQLiteStore:
    return SQLiteStore(directory, (MIGRATION,))


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("groq", ["groq/a", "groq#2/a", "groq/b/c"]),
        ("groq#2", ["groq#2/a"]),
        ("groq/a", ["groq/a"]),
        ("groq#2/a", ["groq#2/a"]),
        ("xai", []),
    ],
)
def test_a_name_stands_for_a_provider_a_key_or_a_target(tmp_path: Path, name: str, off: list[str]) -> None:
    switches = TargetSwitches(store(tmp_path))
    labels = ["groq/a", "groq#2/a", "groq/b/c"]
    assert not any(map(switches.is_off, labels))
    switches.off = {name: 1.0}
    assert [label for label in labels if switches.is_off(label)] == off


def test_a_change_while_the_names_are_read_is_read_as_well() -> None:
    class Stepwise(StateStore):
        """A store whose readings end when the test says so, with the names that it gives."""

        def __init__(self) -> None:
            self.readings: list[asyncio.Future[list[tuple[str, float]]]] = []
            self.on_change: Callable[[], None] = lambda: None

        @override
        async def run(self, work: Work[T]) -> T:
            self.readings.append(asyncio.get_running_loop().create_future())
            return cast("T", await self.readings[-1])

        @override
        def write(self, work: Work[object]) -> None: ...

        @override
        async def flush(self) -> None: ...

        @override
        def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
            self.on_change = on_change
            return lambda: None

        @override
        async def aclose(self) -> None: ...

    async def run() -> None:
        stepwise = Stepwise()
        switches = TargetSwitches(stepwise)
        switches.follow()
        await eventually(lambda: len(stepwise.readings) == 1)
        stepwise.on_change()
        stepwise.readings[0].set_result([])
        await eventually(lambda: len(stepwise.readings) == 2)
        stepwise.readings[1].set_result([("groq", 1.0)])
        await eventually(lambda: set(switches.off) == {"groq"})
        switches.close()

    asyncio.run(run())


def test_other_workers_and_later_ones_learn_of_it(tmp_path: Path) -> None:
    async def run() -> None:
        stores = [store(tmp_path) for _ in range(3)]
        first, second, later = [TargetSwitches(each) for each in stores]
        for switches in (first, second):
            switches.follow()
        assert not any(each.is_open for each in stores)
        await first.switch("groq", is_on=False)
        await first.switch("groq", is_on=False)
        assert set(first.off) == {"groq"}
        await eventually(lambda: set(second.off) == {"groq"})
        later.follow()
        await eventually(lambda: set(later.off) == {"groq"})
        await second.switch("groq", is_on=True)
        await eventually(lambda: not first.off)
        for switches in (first, second, later):
            switches.close()
        for each in stores:
            await each.aclose()

    asyncio.run(run())


def targets(tmp_path: Path, *off: str) -> list[Target[str]]:
    switches = TargetSwitches(store(tmp_path))
    switches.off = dict.fromkeys(off, 1.0)
    return [Target(name, "m", f"{name}/m", switches=switches) for name in ("groq", "xai")]


def test_a_target_that_is_off_is_passed_over(tmp_path: Path) -> None:
    record = RequestRecord("id", "POST", "/")
    state = RetryState(targets(tmp_path, "groq"), Limits(), record)
    assert state.next().provider == "xai"
    state.record_success()
    assert record.route.startswith("groq/m off, xai/m ok")


def test_if_all_are_off_the_answer_says_so(tmp_path: Path) -> None:
    state = RetryState(targets(tmp_path, "groq", "xai"), Limits(), RequestRecord("id", "POST", "/"))
    with pytest.raises(errors.TargetOff, match="operator has switched groq/m off") as caught:
        state.next()
    assert (caught.value.status, caught.value.code) == (503, "target_off")
