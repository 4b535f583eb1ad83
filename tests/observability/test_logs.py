"""Log lines, and the record behind them."""

from __future__ import annotations

import fcntl
import http.client
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sanic_proxy.observability import logs
from sanic_proxy.observability.log_writer import LogWriter
from sanic_proxy.observability.record import Attempt, Client, RequestRecord, Session
from tests.support.load import wait_until
from tests.support.proxy import Proxy, start_proxy, wait_until_ready


def written(capfd: pytest.CaptureFixture[str]) -> str:
    logs.flush()
    return capfd.readouterr().err


def line(style: str, record: RequestRecord, capfd: pytest.CaptureFixture[str]) -> str:
    logs.configure("info", style)
    logs.log_request(record)
    return written(capfd)


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagates in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagates


def finished() -> RequestRecord:
    record = RequestRecord(
        "id-1", "POST", "/v1/chat\n", provider="groq", model='a" b\r\nc', status=200, ended="complete"
    )
    record.sent(10)
    record.sent(5)
    record.usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return record


@pytest.mark.row(76)
def test_a_text_line_stays_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    text = line("text", finished(), capfd)
    assert text.count("\n") == 1
    assert r'model="a\" b\r\nc"' in text
    assert "provider=groq" in text
    assert "bytes=15" in text


def test_a_json_line_is_json(capfd: pytest.CaptureFixture[str]) -> None:
    fields = json.loads(line("json", finished(), capfd))
    assert (fields["model"], fields["status"], fields["bytes"]) == ('a" b\r\nc', 200, 15)
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (3, 4)
    assert fields["first_byte_ms"] <= fields["ms"]


def test_a_json_line_has_all_of_the_record(capfd: pytest.CaptureFixture[str]) -> None:
    record = RequestRecord("id-1", "POST", "/v1/messages", client=Client("c1", "app"), started=100.0)
    record.dialect, record.is_streaming, record.input_bytes, record.longest_gap_s = "messages", True, 70, 0.25
    record.session, record.finished, record.waited_s = Session(b"\x01\x02"), 103.0, 0.5
    record.attempts = [
        Attempt("groq/a", "circuit_open"),
        Attempt("groq/b", "rate_limit_exceeded", 429, 100.25, 100.5),
        Attempt("groq/c", "ok", None, 101.0, 101.5, resumed_at=7, usage={"prompt_tokens": 1}),
    ]
    details = {"cached_tokens": 2, "text": "of the provider", "flag": True}
    record.cost_nano = 1_500_000
    record.usage = {"prompt_tokens": 3, "prompt_tokens_details": details, "tier": "text", "cost": 0.5}
    fields = json.loads(line("json", record, capfd))
    assert fields["attempts"] == [
        {"target": "groq/a", "outcome": "circuit_open"},
        {
            "target": "groq/b",
            "outcome": "rate_limit_exceeded",
            "status": 429,
            "started_ms": 250.0,
            "ms": 250.0,
        },
        {
            "target": "groq/c",
            "outcome": "ok",
            "started_ms": 1000.0,
            "ms": 500.0,
            "resumed_at": 7,
            "usage": {"prompt_tokens": 1},
        },
    ]
    assert fields["usage"] == {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}, "cost": 0.5}
    expected = {
        "client": "app",
        "client_id": "c1",
        "dialect": "messages",
        "target": "groq/c",
        "stream": True,
        "input_bytes": 70,
        "first_content_ms": 1500.0,
        "longest_gap_ms": 250.0,
        "waited_ms": 500.0,
        "session": "0102",
        "cost_usd": 0.0015,
    }
    assert {name: fields[name] for name in expected} == expected


def test_cached_tokens_are_logged_where_there_are_any(capfd: pytest.CaptureFixture[str]) -> None:
    for cached, expected in ((0, None), (2, 2), (None, None)):
        record = finished()
        record.usage = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": cached}}
        assert json.loads(line("json", record, capfd)).get("cached_tokens") == expected


def test_a_traceback_goes_into_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        int("x")
    except ValueError:
        logging.getLogger("sanic_proxy.x").exception("a\nb")
    assert "ValueError" in json.loads(written(capfd))["traceback"]


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
    path: str, status: int, ended: str, level: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = line("text", RequestRecord("id", "GET", path, status=status, ended=ended), capfd)
    assert text.split(" ")[1:2] == ([level] if level else [])


def test_a_line_below_the_level_is_not_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestRecord, "as_fields", lambda _: pytest.fail("made all the same"))
    logs.configure("warning", "text")
    logs.log_request(finished())


def test_a_record_that_cannot_be_formatted_is_counted_as_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    logger = logging.getLogger("sanic_proxy.x")
    logger.info("%d", "no number")
    logger.info("a line")
    line, report = written(capfd).splitlines()
    assert line.endswith(" a line")
    assert report.endswith(" 1 log lines could not be written")


def test_the_number_of_dropped_lines_is_reported_in_the_format_of_the_log() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    writer = LogWriter(fd)
    logs.configure("info", "json", writer)
    for _ in range(3):
        logging.getLogger("sanic_proxy.x").info("nobody reads this")
        assert writer.flush(5)
    reader, again = os.pipe()
    os.dup2(again, fd)
    logging.getLogger("sanic_proxy.x").info("this is read")
    with os.fdopen(reader, "rb") as pipe:
        assert json.loads(pipe.readline())["message"] == "this is read"
        report = json.loads(pipe.readline())
        assert (report["level"], report["message"]) == ("warning", "3 log lines could not be written")
    for number in (fd, again):
        os.close(number)


def test_warnings_of_libraries_go_through_the_queue(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    logging.getLogger("asyncio").error("an exception in a callback")
    logs.configure("info", "text")
    logging.getLogger("asyncio").error("and another")
    text = written(capfd)
    assert text.count("error asyncio an exception in a callback") == 1
    assert text.count("error asyncio and another") == 1


def test_closed_standard_streams_are_filled() -> None:
    code = (
        "import os; from sanic_proxy.observability.logs import fill_standard_streams\n"
        "for number in (0, 1, 2): os.close(number)\n"
        "fill_standard_streams()\n"
        "assert all(os.readlink(f'/proc/self/fd/{number}') == '/dev/null' for number in (0, 1, 2))\n"
        "assert all(os.get_inheritable(number) for number in (0, 1, 2))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A log without a reader


class Reader:
    """Copies a pipe to a file, until it pauses."""

    def __init__(self, pipe: int, path: Path) -> None:
        self._pipe, self._path = pipe, path
        self.may_read = threading.Event()
        self.may_read.set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with self._path.open("ab") as file:
            while self.may_read.wait() and (piece := os.read(self._pipe, 4096)):
                file.write(piece)
                file.flush()
        os.close(self._pipe)


@contextmanager
def proxy_on_a_pipe(directory: Path, *mode: str) -> Iterator[tuple[Proxy, Reader]]:
    pipe, log = os.pipe()
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
    proxy = start_proxy(directory, {"SANIC_PROXY_ECHO": "on"}, *mode, log_to=log)
    os.close(log)
    reader = Reader(pipe, proxy.log_path)
    try:
        wait_until_ready(proxy)
        yield proxy, reader
    finally:
        if proxy.process.poll() is None:
            os.killpg(proxy.process.pid, signal.SIGKILL)
            proxy.process.wait()
        reader.may_read.set()


def send_many(proxy: Proxy, count: int, *, path_chars: int = 6000) -> None:
    """Requests with long log lines, answered one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    for _ in range(count):
        connection.request("GET", "/" + "x" * path_chars)
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status == 404
    connection.close()


@pytest.mark.parametrize("mode", [["--workers", "2"], ["--single-process"]], ids=["workers", "single"])
def test_a_log_without_a_reader_blocks_nothing(tmp_path: Path, mode: list[str]) -> None:
    with proxy_on_a_pipe(tmp_path, *mode) as (proxy, reader):
        reader.may_read.clear()
        send_many(proxy, 600)
        assert proxy.request("GET", "/health").status == 200
        for victim in proxy.worker_pids():  # none where there is no main process
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in (pids := proxy.worker_pids()) and len(pids) == 2)  # type: ignore[misc]
            proxy.process.send_signal(signal.SIGHUP)
        send_many(proxy, 20)
        assert proxy.stop(30) == 0


def test_lines_that_found_no_room_are_counted_in_the_log(tmp_path: Path) -> None:
    with proxy_on_a_pipe(tmp_path, "--single-process") as (proxy, reader):
        reader.may_read.clear()
        send_many(proxy, 1700)
        reader.may_read.set()
        proxy.wait_for_log("log lines could not be written")
        assert proxy.request("GET", "/v1/models").status == 200
        proxy.wait_for_log("path=/v1/models")
        assert proxy.stop() == 0
        wait_until(lambda: "Worker complete" in proxy.log)
    dropped = sum(map(int, re.findall(r"(\d+) log lines could not be written", proxy.log)))
    assert dropped > 0
    assert dropped + proxy.log.count("path=/xxx") == 1700


# On a terminal


@pytest.mark.parametrize(
    ("environ", "is_terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm"}, True, True),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    environ: dict[str, str], is_terminal: bool, expected: bool
) -> None:
    assert logs.shows_colours(environ, is_terminal=is_terminal) is expected


LINES = (
    "import logging; from sanic_proxy.observability import logs; logs.configure('debug', STYLE); "
    "log = logging.getLogger('sanic_proxy.x'); "
    "[getattr(log, level)('text') for level in ('debug', 'info', 'warning', 'error', 'critical')]; "
    "logs.say('plain'); logs.say('problem', 'error'); logs.flush()"
)


def on_terminal(style: str, **environ: str) -> str:
    """What a process writes whose standard error is a terminal."""
    ours, theirs = pty.openpty()
    try:
        settings = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
        code = LINES.replace("STYLE", repr(style))
        subprocess.run([sys.executable, "-c", code], stderr=theirs, env={**settings, **environ}, check=True)
        return os.read(ours, 65536).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_on_a_terminal_each_level_has_its_colour() -> None:
    colours = re.findall(r"\x1b\[([\d;]+)m(\w+)\x1b\[0m", on_terminal("text"))
    assert [level for _, level in colours] == ["debug", "info", "warning", "error", "critical", "error"]
    assert len(set(colours)) == 5
    assert "\nplain\n" in on_terminal("text")


@pytest.mark.parametrize(
    ("style", "environ"), [("text", {"NO_COLOR": "1"}), ("text", {"TERM": "dumb"}), ("json", {})]
)
def test_without_colours_the_lines_are_plain(style: str, environ: dict[str, str]) -> None:
    written_lines = on_terminal(style, NO_COLOR="1") if style == "json" else on_terminal(style, **environ)
    assert "\x1b" not in written_lines
    assert " warning " in written_lines or '"warning"' in written_lines
    assert "error problem\n" in written_lines


def test_into_a_file_the_lines_are_plain() -> None:
    code = LINES.replace("STYLE", "'text'")
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=True)
    assert "\x1b" not in done.stderr
    assert done.stderr.endswith("plain\nproblem\n")
