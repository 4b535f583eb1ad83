"""The value of `model` replaced in place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import model_rewrite

VALUES = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["model", '"model"', '"model":"x"', "\\", "{"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("model"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text().filter(lambda key: key != "model"), VALUES, max_size=4),
    st.dictionaries(st.text().filter(lambda key: key != "model"), VALUES, max_size=4),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_only_the_models_value_changes(
    before: dict[str, Any], after: dict[str, Any], old: str, indent: int | None, ascii_only: bool
) -> None:
    fields = {**before, "model": old, **after}
    body = json.dumps(fields, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    made = b"".join(model_rewrite.replace_model(body, old=old, new="the-new-name"))
    value = json.dumps(old, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert json.loads(made.decode("utf-8", "surrogatepass")) == {**fields, "model": "the-new-name"}
    assert len(made) == len(body) - len(value) + len(b'"the-new-name"') or old == "the-new-name"


def test_an_escaped_key_is_found() -> None:
    body = b'{"x":{"model":"a"},"mod\\u0065l":"b"}'
    assert (
        b"".join(model_rewrite.replace_model(body, old="b", new="c"))
        == b'{"x":{"model":"a"},"mod\\u0065l":"c"}'
    )


@pytest.mark.row(46)
@pytest.mark.parametrize("body", [b'{"model":"a","model":"b"}', b'{"mod\\u0065l":"a","model":"b"}'])
def test_two_models_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        model_rewrite.replace_model(body, old="b", new="c")
    assert caught.value.param == "model"


def test_an_unchanged_name_leaves_the_bytes_alone() -> None:
    body = b'{"model":"a"}'
    assert model_rewrite.replace_model(body, old="a", new="a") == (body,)
