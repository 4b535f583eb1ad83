"""Signatures that travel through a client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.translation import signatures
from tests.support.messages import UNHURRIED

ORIGINS = st.from_regex(r"[a-z0-9][a-z0-9._-]*", fullmatch=True)


@UNHURRIED
@given(ORIGINS, st.text())
def test_a_signature_returns_as_it_was(origin: str, value: str) -> None:
    assert signatures.unwrapped(signatures.wrapped(origin, value)) == (origin, value)


@pytest.mark.parametrize(
    "text", ["", "sp1.", "sp1.x", "sp1..YQ==", "sp1.x.Y", "sp1.x.\u00e9", "EqQBCgIYAhIM", "sp2.x.YQ=="]
)
def test_any_other_text_is_not_ours(text: str) -> None:
    assert signatures.unwrapped(text) is None


@pytest.mark.parametrize("origin", ["", signatures.native("messages")])
def test_a_signature_of_unknown_origin_is_not_marked(origin: str) -> None:
    assert signatures.wrapped(origin, "abc") == "abc"


def test_the_origin_of_an_unmarked_signature_is_the_clients_api() -> None:
    assert signatures.origin_and_value("abc", "messages") == (signatures.native("messages"), "abc")
    assert signatures.origin_and_value("", "messages") == ("", "")
    assert signatures.origin_and_value(signatures.wrapped("p", ""), "messages") == ("p", "")
