"""Log lines, and the record behind them."""

from __future__ import annotations

import errno
import io
import json
import logging
import subprocess
import sys

import pytest
from typing_extensions import override

from sanic_proxy.observability import logs
from sanic_proxy.observability.record import RequestRecord


def line(style: str, record: RequestRecord, capsys: pytest.CaptureFixture[str]) -> str:
    logs.configure("info", style)
    logs.log_request(record)
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def quiet() -> object:
    yield
    for name in logs._NAMES:
        logging.getLogger(name).handlers.clear()


def finished() -> RequestRecord:
    record = RequestRecord(
        "id-1", "POST", "/v1/chat\n", provider="groq", model='a" b\r\nc', status=200, ended="complete"
    )
    record.sent(10)
    record.sent(5)
    record.usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return record


@pytest.mark.row(76)
def test_a_text_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = line("text", finished(), capsys)
    assert text.count("\n") == 1
    assert r'model="a\" b\r\nc"' in text
    assert "provider=groq" in text
    assert "bytes=15" in text


def test_a_json_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    fields = json.loads(line("json", finished(), capsys))
    assert (fields["model"], fields["status"], fields["bytes"]) == ('a" b\r\nc', 200, 15)
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (3, 4)
    assert fields["first_byte_ms"] <= fields["ms"]


def test_a_traceback_goes_into_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        int("x")
    except ValueError:
        logging.getLogger("sanic_proxy.x").exception("a\nb")
    assert "ValueError" in json.loads(capsys.readouterr().err)["traceback"]


@pytest.mark.parametrize(
    ("path", "status", "ended", "level"),
    [
        ("/v1/models", 200, "complete", "info"),
        ("/v1/chat/completions", 499, "client_left", "info"),
        ("/v1/chat/completions", 502, "upstream_error", "warning"),
        ("/v1/chat/completions", 200, "upstream_stalled", "warning"),
        ("/v1/chat/completions", 401, "invalid_api_key", "warning"),
        ("/health", 200, "complete", ""),
        ("/healthz", 200, "complete", ""),
        ("/health/readiness", 503, "complete", ""),
    ],
)
def test_failed_requests_are_warnings_and_health_probes_are_not_logged(
    path: str, status: int, ended: str, level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = line("text", RequestRecord("id", "GET", path, status=status, ended=ended), capsys)
    assert text.split(" ")[1:2] == ([level] if level else [])


def test_a_line_that_nobody_wants_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestRecord, "as_fields", lambda _: pytest.fail("made all the same"))
    logs.configure("warning", "text")
    logs.log_request(finished())


def test_lines_that_cannot_be_written_are_counted_and_told_of_when_it_works_again() -> None:
    class Disk(io.StringIO):
        is_full = True

        @override
        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    disk = Disk()
    handler = logs._Handler(disk)
    record = logging.LogRecord("sanic_proxy.test", logging.INFO, "", 0, "a line", (), None)
    for _ in range(3):
        handler.emit(record)
    disk.is_full = False
    handler.emit(record)
    handler.emit(record)
    assert disk.getvalue() == "a line\n3 log lines could not be written\na line\n"


def test_closed_standard_streams_are_filled() -> None:
    code = (
        "import os; from sanic_proxy.observability.logs import fill_standard_streams\n"
        "for number in (0, 1, 2): os.close(number)\n"
        "fill_standard_streams()\n"
        "assert all(os.readlink(f'/proc/self/fd/{number}') == '/dev/null' for number in (0, 1, 2))\n"
        "assert all(os.get_inheritable(number) for number in (0, 1, 2))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
