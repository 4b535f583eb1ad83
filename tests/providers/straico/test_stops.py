"""Answers are truncated at stop sequences."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.stops import parse_stop, truncate


@pytest.mark.parametrize(
    ("stop", "stops"), [(None, ()), ("\n", ("\n",)), (["a", "b"], ("a", "b")), (["x"] * 4, ("x",) * 4)]
)
def test_a_stop_is_one_string_or_several(stop: Any, stops: tuple[str, ...]) -> None:
    assert parse_stop({"stop": stop}) == stops


@pytest.mark.parametrize("stop", ["", [], [""], ["a", 7], 7, {}, ["x"] * 5, True])
def test_any_other_stop_is_rejected(stop: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_stop({"stop": stop})
    assert caught.value.param == "stop"


TEXTS = st.text("ab\n<", max_size=30) | st.text(max_size=10)


@given(TEXTS, st.lists(TEXTS.filter(bool), min_size=1, max_size=4))
def test_text_is_truncated_exactly_before_the_first_stop(text: str, stops: list[str]) -> None:
    shorter = truncate(text, stops)
    if shorter is None:
        assert not any(stop in text for stop in stops)
        return
    assert not any(stop in shorter for stop in stops)
    assert any(text.startswith(shorter + stop) for stop in stops)
