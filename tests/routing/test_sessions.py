"""The session of a request."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.openai import codec
from sanic_proxy.routing.sessions import (
    MAX_NAME_CHARS,
    conversation_name,
    digest,
    encrypted_name,
    header_name,
    session_name,
    shortened,
    wants_encrypted,
)


@pytest.mark.parametrize(
    ("headers", "fields", "expected"),
    [
        ({}, {}, ""),
        ({"x-claude-code-session-id": "a", "session-id": "b"}, {"prompt_cache_key": "c"}, "a"),
        ({"session-id": "b", "x-session-affinity": "d"}, {"prompt_cache_key": "c"}, "b"),
        ({"session_id": "b"}, {"user": "u"}, "b"),
        ({"x-session-affinity": "d"}, {"prompt_cache_key": "c", "user": "u"}, "c"),
        ({"x-session-affinity": "d"}, {"metadata": {"session_id": "e"}, "user": "u"}, "d"),
        ({}, {"metadata": {"session_id": "e", "user_id": "f"}, "user": "u"}, "e"),
        ({}, {"metadata": {"user_id": "f"}, "user": "u"}, "f"),
        ({}, {"metadata": {"other": "f"}, "user": "u"}, "u"),
        ({}, {"metadata": "x", "user": 5, "prompt_cache_key": ["c"]}, ""),
        ({"session-id": ""}, {"user": "u"}, "u"),
    ],
)
def test_the_first_name_that_a_client_sends_counts(
    headers: dict[str, str], fields: dict[str, Any], expected: str
) -> None:
    assert session_name(header_name(headers), fields) == expected


def test_long_names_are_hashed_whole() -> None:
    short, long = "n" * MAX_NAME_CHARS, "n" * 5000
    assert shortened(short) == short
    assert len({shortened(long), shortened(long + "1"), shortened(long + "\ud800")}) == 3
    assert len(shortened(long)) < MAX_NAME_CHARS


def test_a_session_is_one_clients_and_one_models() -> None:
    own = digest("client", "model", "name")
    assert own == digest("client", "model", "name")
    assert (
        len({own, digest("other", "model", "name"), digest("client", "x", "name"), digest("", "", "")}) == 4
    )
    assert digest("c", "m", "\ud800") != digest("c", "m", "")


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


SYSTEM = {"role": "system", "content": "Be brief"}
REPLY = {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize("name", ["messages", "input", "contents"])
def test_all_turns_of_a_conversation_have_the_same_beginning(name: str) -> None:
    first = conversation_name({"model": "m", name: [SYSTEM, user("a")], "temperature": 1})
    assert first
    assert first == conversation_name({name: [SYSTEM, user("a"), REPLY, user("b")], "temperature": 0})
    assert first != conversation_name({name: [SYSTEM, user("c")]})
    assert first != conversation_name({name: [SYSTEM, user("a")], "tools": [{"type": "function"}]})
    assert first != conversation_name({name: [user("a")]})


@pytest.mark.parametrize("fields", [{}, {"messages": []}, {"messages": None}, {"input": ""}])
def test_an_empty_conversation_has_no_beginning(fields: dict[str, Any]) -> None:
    assert conversation_name(fields) == ""


@pytest.mark.parametrize("turns", ["text", [1, None], {"a": 1}, [{"role": ["user"]}]])
def test_odd_conversations_have_a_beginning_all_the_same(turns: Any) -> None:
    assert conversation_name({"input": turns}) == conversation_name({"input": turns})


def reasoning(content: object) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "encrypted_content": content}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([user("a"), reasoning("gAAA"), reasoning("gBBB")], "gAAA"),
        ([reasoning("sp1.openai.Z0FB"), reasoning("gBBB")], "gBBB"),
        ([reasoning("sp1.openai.Z0FB")], ""),
        ([reasoning(None), reasoning(""), reasoning(5), 7], ""),
        ([user('"encrypted_content"')], ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_reasoning_that_only_its_maker_can_decrypt_is_found(items: Any, expected: str) -> None:
    fields = {"input": items}
    assert encrypted_name(codec.dumps(fields), fields) == expected


def test_a_request_may_ask_for_such_reasoning() -> None:
    assert wants_encrypted({"include": ["x", "reasoning.encrypted_content"]})
    odd: list[Any] = [None, [], "reasoning.encrypted_content", {"a": 1}]
    assert not any(wants_encrypted({"include": include}) for include in odd)
