"""Which requests are captured, and the line that is made of one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.config.capture import CaptureSettings
from sanic_proxy.config.rules import ClientRules
from sanic_proxy.observability.capture import Capture, Captures, conversation_digest, line_of
from sanic_proxy.observability.record import Client, RequestRecord

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()


def record(model: str = "m", share: float = 0.0) -> RequestRecord:
    made = RequestRecord("id", "POST", "/", client=Client("c", "app", ClientRules(capture=share)))
    made.model = model
    return made


@pytest.fixture
def settings(tmp_path: Path) -> CaptureSettings:
    return CaptureSettings(file=str(tmp_path / "captures"), max_bytes=1024)


def test_the_client_or_the_model_decides(settings: CaptureSettings) -> None:
    captures = Captures(settings, {"m": 0.0, "all": 1.0, "x-*": 1.0}, ())
    assert captures.begin({}, record(), BODY) is None
    for each in (record(share=1.0), record("all"), record("x-1")):
        assert captures.begin({}, each, BODY) is each.capture is not None
    assert Captures(settings, {}, ()).begin({}, record("all"), BODY) is None
    captures.close()


def test_samples(settings: CaptureSettings) -> None:
    captures = Captures(settings, {}, ())
    taken = sum(captures.begin({}, record(share=0.5), BODY) is not None for _ in range(1000))
    assert 300 < taken < 700
    captures.close()


@pytest.mark.parametrize(("value", "is_captured"), [("1", False), ("true", False), ("?", False), ("0", True)])
def test_a_request_can_refuse(settings: CaptureSettings, value: str, is_captured: bool) -> None:
    captures = Captures(settings, {}, ())
    found = captures.begin({"x-no-log": value}, record(share=1.0), BODY)
    assert (found is not None) == is_captured
    captures.close()


def made(capture: Capture, **more: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(line_of({"time": 1.0, **more}, capture, lambda text: text, 100))
    return line


def test_a_large_answer_is_cut_and_a_large_request_left_out() -> None:
    capture = Capture(BODY, 0.0, 100)
    for number in range(5):
        capture.add(bytes([65 + number]) * 30)
    line = made(capture)
    assert [text for _, text in line["frames"]] == ["A" * 30, "B" * 30, "C" * 30]
    assert line["cut"]
    assert line["request"]["messages"] == [{"role": "user", "content": "Hi"}]
    large = made(Capture(b'{"a":"%b"}' % (b"x" * 200), 0.0, 100))
    assert (large["request"], large["digest"], large["cut"]) == (None, None, False)
    assert made(Capture(b"no json", 0.0, 100))["request"] is None


def test_an_observed_record_is_written_once(settings: CaptureSettings) -> None:
    captures = Captures(replace(settings, max_field_chars=4), {}, ("a secret",))
    each = record(share=1.0)
    body = json.dumps({"messages": "123456", "n": "a secret"}).encode()
    capture = captures.begin({}, each, body)
    assert capture is not None
    capture.add_whole(b'{"text":"a secret"}')
    each.status, each.usage = 200, {"prompt_tokens": 3}
    each.finish([captures.observe, captures.observe])
    captures.close()
    (line,) = map(json.loads, settings.path.read_text().splitlines())
    assert next(iter(line)) == "time"
    assert line["body"] == '{"text":"[redacted]"}'
    assert line["request"]["messages"] == "1234[2 more]"
    assert (line["client"], line["usage"], line["ended"]) == ("app", {"prompt_tokens": 3}, "complete")
    assert line["digest"] == conversation_digest({"messages": "123456"})


def test_a_digest_is_that_of_the_conversation() -> None:
    digest = conversation_digest({"messages": [{"a": 1, "b": "\ud800"}], "model": "x"})
    assert digest == conversation_digest({"messages": [{"b": "\ud800", "a": 1}], "temperature": 1})
    assert digest != conversation_digest({"messages": [{"a": 2}]})
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert conversation_digest({"messages": deep}) == ""
