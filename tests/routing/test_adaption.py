"""What a target gets of a client's request: its bytes, or what its dialect and options make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy.config.model import NO_OPTIONS, RequestOptions
from sanic_proxy.routing.adaption import with_options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (NO_OPTIONS, {"model": "m", "seed": 1}),
        (RequestOptions(default_params={"seed": 2, "top_p": 0.5}), {"model": "m", "seed": 1, "top_p": 0.5}),
        (RequestOptions(set_params={"seed": 2}), {"model": "m", "seed": 2}),
        (RequestOptions(remove_params=("seed", "other")), {"model": "m"}),
        (RequestOptions(set_params={"seed": 2}, remove_params=("seed",)), {"model": "m"}),
    ],
)
def test_options_change_the_parameters(options: RequestOptions, expected: dict[str, Any]) -> None:
    fields = {"model": "m", "seed": 1}
    assert with_options(fields, options) == expected
    assert fields == {"model": "m", "seed": 1}


def test_the_options_of_a_model_win_over_those_of_its_provider() -> None:
    provider = RequestOptions(
        default_params={"a": 1, "b": 1}, set_params={"c": 1}, remove_params=("d",), is_strict=False
    )
    model = RequestOptions(default_params={"a": 2}, set_params={"c": 2}, remove_params=("e",), is_strict=True)
    merged = provider.merged(model)
    assert merged == RequestOptions(
        default_params={"a": 2, "b": 1}, set_params={"c": 2}, remove_params=("d", "e"), is_strict=True
    )
    assert provider.merged(NO_OPTIONS) is provider
    assert NO_OPTIONS.merged(model) is model
    assert json.dumps(dict(merged.default_params)) == '{"a": 2, "b": 1}'
