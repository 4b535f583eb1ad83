"""The pins that workers share: targets by the hash of their label, until a time."""

from __future__ import annotations

import pytest

from sanic_proxy.routing.sessions import digest
from sanic_proxy.routing.shared_pins import SharedPins
from sanic_proxy.state_store.shared import Layout, SharedMemory

LABELS = ("groq/llama", "groq#2/llama", "mistral/small")
SESSION = digest("client", "model", "session")


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("is_proven", [False, True])
def test_what_one_worker_writes_another_reads(label: str, is_proven: bool) -> None:
    memory = SharedMemory()
    SharedPins(memory).write(SESSION, label, 100.0, is_proven=is_proven)
    found = SharedPins(memory).read(SESSION, 50.0, 100.0)
    assert found is not None
    assert found.label_among(LABELS) == label
    assert found.label_among(["other/model"]) is None
    assert found.is_proven == is_proven
    memory.close()


def test_a_pin_ends_unless_it_is_read() -> None:
    pins = SharedPins(SharedMemory())
    pins.write(SESSION, LABELS[0], 100.0, is_proven=True)
    assert pins.read(SESSION, 99.0, 199.0) is not None
    assert pins.read(SESSION, 198.0, 0.0) is not None
    assert pins.read(SESSION, 199.0, 299.0) is None
    assert pins.read(digest("client", "model", "other"), 0.0, 99.0) is None


def test_the_number_of_pins_is_bounded() -> None:
    pins = SharedPins(SharedMemory(layout=Layout(entries=64)))
    sessions = [digest("", "", str(number)) for number in range(1000)]
    for number, session in enumerate(sessions):
        pins.write(session, LABELS[0], 1000.0 + number, is_proven=False)
    known = [number for number, session in enumerate(sessions) if pins.read(session, 0.0, 0.0) is not None]
    assert len(known) <= 64
    assert known[-1] == 999
