"""Secrets that stay secret, and an open proxy that stays at home."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import orjson
import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import SettingsError, binding_problem, is_loopback
from sanic_proxy.config.secret import Secret

KEY = "gsk-canary-0123456789"


def test_an_open_proxy_stays_on_loopback(tmp_path: Path) -> None:
    is_open = load({}, tmp_path)
    assert binding_problem(is_open, "127.0.0.1") is None
    assert "SANIC_PROXY_ALLOW_OPEN" in (binding_problem(is_open, "0.0.0.0") or "")
    assert binding_problem(load({"SANIC_PROXY_ALLOW_OPEN": "1"}, tmp_path), "0.0.0.0") is None
    assert binding_problem(load({"SANIC_PROXY_API_KEYS": "k"}, tmp_path), "0.0.0.0") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((name, True) for name in ("localhost", "127.0.0.9", "[::1]", "::1", "a.localhost")),
        *((name, False) for name in ("0.0.0.0", "example.com", "", "127.0.0.1.evil.example")),
    ],
)
def test_loopback_is_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.row(76)
def test_a_secret_cannot_be_shown_by_accident(tmp_path: Path) -> None:
    settings = load(
        {"GROQ_API_KEY": KEY, "SANIC_PROXY_API_KEYS": KEY, "HTTPS_PROXY": f"http://{KEY}@p"}, tmp_path
    )
    secret = Secret(KEY)
    shown = [repr(settings), str(settings), repr(secret), f"{secret}", f"{secret:>9}", "%s" % secret]  # noqa: UP031
    assert not any(KEY in text for text in shown)
    for dump in (pickle.dumps, copy.deepcopy, orjson.dumps):
        with pytest.raises(TypeError):
            dump(settings)
        with pytest.raises(TypeError):
            dump(secret)
    assert not hasattr(secret, "__dict__")


def test_every_key_is_known_as_one(tmp_path: Path) -> None:
    given = {"GROQ_API_KEY": "first-of-groq, second-of-groq", "SANIC_PROXY_API_KEYS": "of-a-client,short"}
    assert set(load(given, tmp_path).secrets) == {"first-of-groq", "second-of-groq", "of-a-client"}


def test_the_password_of_the_store_is_a_secret(tmp_path: Path) -> None:
    url = "postgresql://proxy:p%40ssword-of-db@db.example/proxy"
    settings = load({"SANIC_PROXY_STORE": url}, tmp_path)
    assert set(settings.secrets) == {url, "p%40ssword-of-db", "p@ssword-of-db"}
    assert "ssword" not in repr(settings)
    assert load({"SANIC_PROXY_STORE": "sqlite"}, tmp_path).store is None
    assert load({}, tmp_path).store is None


@pytest.mark.parametrize("url", ["mysql://u:secret-word@h/d", "postgresql://", "postgresql:// a", "SQLite"])
def test_another_store_is_rejected_without_being_shown(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"SANIC_PROXY_STORE.*postgresql://") as caught:
        load({"SANIC_PROXY_STORE": url}, tmp_path)
    assert "secret-word" not in str(caught.value)
