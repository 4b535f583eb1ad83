"""The measurement of /health under large bodies."""

from __future__ import annotations

import json

import pytest

from loadtest.large_bodies import BODIES, described, measure


@pytest.mark.parametrize("kind", BODIES)
def test_its_bodies_are_chats_of_the_requested_size(kind: str) -> None:
    body = BODIES[kind](100_000)
    assert 95_000 < len(body) < 115_000
    assert json.loads(body)["model"] == "groq/m"


def test_it_measures_while_bodies_are_sent(capfd: pytest.CaptureFixture[str]) -> None:
    delays, lags = measure("image", 2, 1_000_000)
    assert len(delays) == len(lags) > 0
    assert "{'200': 2}" in capfd.readouterr().out
    assert "p99" in described(delays)
