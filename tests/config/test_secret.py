"""A secret shows nothing but how it ends, and only a long one."""

from __future__ import annotations

import pytest

from sanic_proxy.config.secret import Secret


@pytest.mark.parametrize(
    ("value", "hint"), [("sk-0123456789abcdef", "...cdef"), ("short", "****"), ("x" * 15, "****")]
)
def test_hint(value: str, hint: str) -> None:
    assert Secret(value).hint == hint
