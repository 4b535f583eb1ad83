"""What is removed from captured content."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from sanic_proxy.errors import REDACTED
from sanic_proxy.observability.redaction import cleaned, cleaner, described

IMAGE = bytes(range(256)) * 8
ENCODED = base64.b64encode(IMAGE).decode()
MARK = f"[sha256:{hashlib.sha256(IMAGE).hexdigest()} {len(IMAGE)} bytes]"
clean = cleaner(['the proxy\'s "secret"', "pass word"])


@pytest.mark.row(76)
@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefgh12345678",
        "sk-ant-api03-abcDEF_123-456",
        "gsk_abcdefgh12345678",
        "AIzaSyA1234567890abcdefghijklmnopqrs",
        "AKIAIOSFODNN7EXAMPLE",
        "Bearer abc.def-123456",
        'the proxy\'s "secret"',
        "pass word",
    ],
)
def test_keys_are_removed_from_text_and_from_json(key: str) -> None:
    for text in (f"before {key} after", json.dumps({"a": f"{key} after"})):
        assert REDACTED in clean(text)
        assert key not in clean(text)
        assert json.dumps(key)[1:-1] not in clean(text)
        assert "after" in clean(text)


def test_a_key_in_a_url_is_removed() -> None:
    assert clean("https://x.test/a?key=abcdefgh1234&b=1") == f"https://x.test/a?key={REDACTED}&b=1"


@pytest.mark.parametrize(
    "text", ["task-force", "risk-averse people", "a bearer of news", "-" * 2000, "a b" * 900]
)
def test_plain_text_stays(text: str) -> None:
    assert clean(text) == text


def test_images_become_their_hash_and_size() -> None:
    assert clean(f"data:image/png;base64,{ENCODED}") == f"data:image/png;base64,{MARK}"
    assert clean(json.dumps({"result": ENCODED})) == json.dumps({"result": MARK})
    small = base64.b64encode(b"tiny").decode()
    assert clean(f"data:image/gif;base64,{small}") == f"data:image/gif;base64,{described(small)}"
    source = {"type": "base64", "media_type": "image/png", "data": small}
    assert cleaned(source, clean, 1000) == {**source, "data": described(small)}


def test_texts_are_cut() -> None:
    value = {"messages": [{"content": "x" * 12, "n": 1, "is": True, "none": None}]}
    short = {"messages": [{"content": f"{'x' * 10}[2 more]", "n": 1, "is": True, "none": None}]}
    assert cleaned(value, clean, 10) == short


def test_what_only_looks_like_base64_has_a_hash_as_well() -> None:
    assert described("a").endswith(" bytes]")
    assert described("\ud800abc").startswith("[sha256:")
