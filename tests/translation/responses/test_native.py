"""What the proxy changes in a request for a provider that speaks Responses itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy.translation.responses.native import may_need_change, with_own_items
from sanic_proxy.translation.signatures import wrapped


def reasoning(encrypted: str | None) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "encrypted_content": encrypted}


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize("input_", ["x", None, [], [USER], [USER, reasoning("gAAA"), reasoning(None), 5]])
def test_most_requests_pass_as_they_are(input_: Any) -> None:
    fields = {"model": "m", "input": input_}
    assert with_own_items(fields, "openai") is fields
    assert not may_need_change(json.dumps(fields).encode())


def test_only_the_provider_s_own_reasoning_is_sent() -> None:
    fields = {"input": [reasoning(wrapped("openai", "gAAA")), reasoning(wrapped("anthropic", "sig")), USER]}
    assert may_need_change(json.dumps(fields).encode())
    assert with_own_items(fields, "openai") == {"input": [reasoning("gAAA"), USER]}


def test_a_compaction_of_ours_becomes_its_summary() -> None:
    item = {"type": "compaction", "encrypted_content": wrapped("compaction", "The user wants x.")}
    (message,) = with_own_items({"input": [item]}, "openai")["input"]
    assert message["role"] == "user"
    assert message["content"].endswith("The user wants x.")
