"""Kinds of values: what they accept, and their messages for the rest."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.config.model import VARIABLES, Settings
from sanic_proxy.config.variables import (
    Choice,
    Duration,
    Flag,
    HostList,
    Integer,
    Keys,
    Kind,
    OriginList,
    Size,
    declared,
    suggestion,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Integer(1, 9), "9", 9),
        (Size(0, 2**40), "1024", 1024),
        (Size(0, 2**40), "32MiB", 32 * 2**20),
        (Size(0, 2**40), "1 GB", 10**9),
        (Size(0, 2**40), "5k", 5000),
        (Duration(), "90", 90.0),
        (Duration(), "1.5", 1.5),
        (Duration(), "10m", 600.0),
        (Duration(), "1h 30m", 5400.0),
        (Duration(), "500ms", 0.5),
        (Duration(zero=True), "0", 0.0),
        (Flag(), "Yes", True),
        (Flag(), "0", False),
        (Choice(("a", "b")), "A", "a"),
        (HostList(), "LLM.example.com, [::1]:8000", frozenset({"llm.example.com", "[::1]:8000"})),
    ],
)
def test_accepted(kind: Kind[Any], text: str, value: object) -> None:
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((Integer(1, 9), text) for text in ("0", "10", "x", "1.0", "", "９", "1" * 100)),
        *((Size(1, 100), text) for text in ("0", "101", "1 TiB", "-1", "1k")),
        *((Duration(), text) for text in ("0", "-1", "x", "nan", "inf", "1e3", "25h", "10 parsecs", "m")),
        (Flag(), "maybe"),
        (Choice(("a",)), "b"),
        *(
            (OriginList(), text)
            for text in ("example.com", "https://", "https://a b", "https://x/path", "https://*")
        ),
        *((HostList(), text) for text in ("https://a", "a/b", "a b", "a:port", "[::1]x")),
    ],
)
def test_refused(kind: Kind[Any], text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is made from `expects`
        kind.parse(text)


@pytest.mark.parametrize("text", ["'secret-key'", '"secret-key"', "two words", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"quotes|space|ASCII") as caught:
        Keys().parse(text)
    assert text.strip("'\"") not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "origin", "expected"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://a.example", "HTTPS://A.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://*.example.com", "https://app.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://evil-example.com", False),
        ("https://*.example.com", "https://app.example.com.evil.test", False),
        ("http://localhost:*", "http://localhost:5173", True),
        ("http://localhost:*", "http://localhost", False),
        ("http://localhost:*", "http://localhost.evil.test:1", False),
        ("*", "https://anything.test", True),
        ("chrome-extension://abc", "chrome-extension://abc", True),
    ],
)
def test_origins(pattern: str, origin: str, expected: bool) -> None:
    assert OriginList().parse(pattern).allow(origin) is expected


def test_every_setting_is_declared_once() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(set(names)) == len(names)
    assert all(variable.meaning and variable.kind.expects for variable in VARIABLES)
    assert {name for name, _ in declared(Settings)} >= {"timeouts", "pool", "port"}


def test_a_misspelled_name_is_guessed() -> None:
    assert suggestion("timout_idle", ["timeout_idle", "port"]) == "; did you mean 'timeout_idle'?"
    assert suggestion("zzz", ["port"]) == ""
