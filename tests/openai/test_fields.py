"""Fields of a body, checked for what is relied on."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai.fields import flag_field, list_field, text_field


def test_good_fields_are_given_as_they_are() -> None:
    fields: dict[str, Any] = {"model": "m", "stream": True, "messages": [1]}
    assert text_field(fields, "model") == "m"
    assert flag_field(fields, "stream") is True
    assert flag_field(fields, "other") is False
    assert list_field(fields, "messages") == [1]


@pytest.mark.parametrize("value", [None, 1, [], {}, True])
def test_a_text_must_be_text(value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        text_field({"model": value}, "model")
    assert caught.value.param == "model"


@pytest.mark.parametrize("value", ["true", 1, 0, []])
def test_a_flag_must_be_a_flag(value: object) -> None:
    with pytest.raises(InvalidRequest):
        flag_field({"stream": value}, "stream")


@pytest.mark.parametrize("value", [None, "x", [], {}])
def test_a_list_must_hold_something(value: object) -> None:
    with pytest.raises(InvalidRequest):
        list_field({"messages": value}, "messages")
