"""The pins that workers share: targets by the hash of their label, until a time."""

from __future__ import annotations

import pytest

from sanic_proxy.routing.sessions import digest
from sanic_proxy.routing.shared_pins import PROVEN, SharedPins, session_key, word_of
from sanic_proxy.state_store.shared import Layout, SharedMemory

LABELS = ("groq/llama", "groq#2/llama", "mistral/small")
SESSION = session_key(digest("client", "model", "session"))


def test_targets_have_words_of_their_own() -> None:
    assert len({word_of(label) for label in LABELS}) == len(LABELS)
    assert not any(word_of(label) & PROVEN for label in LABELS)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("proven", [0, PROVEN])
def test_what_one_worker_writes_another_reads(label: str, proven: int) -> None:
    memory = SharedMemory()
    SharedPins(memory).write(SESSION, word_of(label) | proven, 100.0)
    assert SharedPins(memory).read(SESSION, 50.0, 100.0) == word_of(label) | proven
    memory.close()


def test_a_pin_ends_unless_it_is_read() -> None:
    pins = SharedPins(SharedMemory())
    pins.write(SESSION, word_of(LABELS[0]), 100.0)
    assert pins.read(SESSION, 99.0, 199.0) is not None
    assert pins.read(SESSION, 198.0, 0.0) is not None
    assert pins.read(SESSION, 199.0, 299.0) is None
    assert pins.read(session_key(digest("client", "model", "other")), 0.0, 99.0) is None


def test_a_pin_that_is_read_often_does_not_end() -> None:
    pins = SharedPins(SharedMemory())
    pins.write(SESSION, word_of(LABELS[0]), 100.0)
    for second in range(1000):
        assert pins.read(SESSION, float(second), second + 100.0) is not None


def test_the_number_of_pins_is_bounded() -> None:
    pins = SharedPins(SharedMemory(layout=Layout(entries=64)))
    keys = [session_key(digest("", "", str(number))) for number in range(1000)]
    for number, key in enumerate(keys):
        pins.write(key, word_of(LABELS[0]), 1000.0 + number)
    known = [number for number, key in enumerate(keys) if pins.read(key, 0.0, 0.0) is not None]
    assert len(known) <= 64
    assert known[-1] == 999
