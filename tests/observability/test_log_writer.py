"""Log lines are queued, written by a thread, kept in order, and dropped rather than waited for."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sanic_proxy.observability.log_writer import LineStream, LogWriter

ROOT = Path(__file__).parents[2]


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of the smallest size: (read end, write end)."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        for number in (reader, writer):
            os.close(number)


def read_lines(reader: int, last: bytes) -> list[bytes]:
    received = b""
    while not received.endswith(last + b"\n"):
        received += os.read(reader, 65536)
    return received.splitlines()


def lines(count: int, size: int = 100) -> list[bytes]:
    return [b"%d " % number + b"x" * size + b"\n" for number in range(count)]


def test_lines_keep_their_order_and_their_ends() -> None:
    with pipe() as (reader, fd):
        writer = LogWriter(fd)
        wanted = lines(2000)
        threading.Thread(target=lambda: deque(map(writer.write, wanted), maxlen=0)).start()
        assert read_lines(reader, wanted[-1].rstrip()) == [line.rstrip() for line in wanted]
        assert writer.flush(5)


@pytest.mark.parametrize(
    ("max_lines", "max_bytes", "kept"), [(10, 10**6, 10), (10**6, 5000, 4)], ids=["lines", "bytes"]
)
def test_a_pipe_without_a_reader_costs_lines_and_no_time(max_lines: int, max_bytes: int, kept: int) -> None:
    with pipe() as (reader, fd):
        os.write(fd, b"f" * 4095 + b"\n")  # full from the start
        writer = LogWriter(fd, max_lines=max_lines, max_bytes=max_bytes)
        for line in lines(1000, 1000):
            writer.write(line)
        assert not writer.flush(0.05)
        received = b""
        while received.count(b"\n") < 1 + kept + 1:
            received += os.read(reader, 65536)
        _, *others = received.splitlines()
        others.remove(b"%d log lines could not be written" % (1000 - kept))
        assert [line.split()[0] for line in others] == [b"%d" % number for number in range(kept)]
        writer.write(b"later\n")
        assert read_lines(reader, b"later") == [b"later"]


def test_several_processes_on_one_pipe_do_not_tear_each_others_lines() -> None:
    code = (
        "import sys; from sanic_proxy.observability.log_writer import LogWriter\n"
        "writer = LogWriter(2)\n"
        "for _ in range(3000): writer.write(sys.argv[1].encode() * 90 + b'\\n')\n"
        "assert writer.flush(30)"
    )
    reader, fd = os.pipe()
    others = [subprocess.Popen([sys.executable, "-c", code, letter], cwd=ROOT, stderr=fd) for letter in "abc"]
    os.close(fd)
    received = b""
    while piece := os.read(reader, 65536):
        received += piece
    os.close(reader)
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert sorted(received.split()) == [letter * 90 for letter in (b"a", b"b", b"c") for _ in range(3000)]


def test_a_full_disk_drops_lines_and_the_next_one_begins_a_line_of_its_own(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is a disk that fills up in the middle of a line."""
    code = (
        "import os, resource, signal\n"
        "from sanic_proxy.observability.log_writer import LogWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "writer = LogWriter(2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (7, hard))\n"
        "for line in (b'one\\n', b'two two\\n', b'three\\n'): writer.write(line); writer.flush(5)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "writer.write(b'four\\n'); writer.close(); writer.close()"
    )
    path = tmp_path / "log"
    with path.open("ab") as log:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=log, check=True, timeout=120)
    assert path.read_bytes() == b"one\ntwo\nfour\n2 log lines could not be written\n"


def test_a_closed_pipe_is_survived() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    writer = LogWriter(fd)
    for _ in range(3):
        writer.write(b"nobody\n")
        assert writer.flush(5)
    os.close(fd)


def test_a_descriptor_that_another_process_made_non_blocking_is_waited_for() -> None:
    with pipe() as (reader, fd):
        os.set_blocking(fd, False)
        os.write(fd, b"f" * 4095 + b"\n")
        writer = LogWriter(fd)
        writer.write(b"a line\n")
        assert not writer.flush(0.05)
        assert read_lines(reader, b"a line")[-1] == b"a line"


def run(code: str, stderr: int, timeout_s: float = 30) -> int:
    code = f"from sanic_proxy.observability import logs\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=stderr, check=False, timeout=timeout_s
    ).returncode


def test_lines_and_a_traceback_are_written_before_the_process_ends(tmp_path: Path) -> None:
    code = (
        "logs.fill_standard_streams(); logs.redirect_stderr()\n"
        "logs.configure('info', 'text')\n"
        "import logging, sys\n"
        "logging.getLogger('sanic_proxy.x').info('first')\n"
        "sys.stderr.write('sec'); sys.stderr.write('ond\\n')\n"
        "1 / 0"
    )
    path = tmp_path / "log"
    with path.open("wb") as log:
        assert run(code, log.fileno()) == 1
    written = path.read_text().splitlines()
    assert written[0].endswith("first")
    assert written[1:3] == ["second", "Traceback (most recent call last):"]
    assert written[-1] == "ZeroDivisionError: division by zero"


def test_the_end_of_a_process_waits_a_second_for_its_lines_and_no_longer() -> None:
    code = (
        "logs.fill_standard_streams(); logs.redirect_stderr(); logs.configure('info', 'text')\n"
        "import logging\n"
        "for _ in range(2000): logging.getLogger('sanic_proxy.x').info('x' * 1000)\n"
        "1 / 0"
    )
    reader, fd = os.pipe()
    began = time.monotonic()
    assert run(code, fd) == 1  # without a reader
    assert time.monotonic() - began < 30
    os.close(reader)
    os.close(fd)


def test_a_forked_child_has_a_queue_and_a_thread_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "logs.say('parent'); logs.flush()\n"
        "child = os.fork()\n"
        "logs.say('child' if child == 0 else 'after'); logs.flush()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0"
    )
    path = tmp_path / "log"
    with path.open("wb") as log:
        assert run(code, log.fileno()) == 0
    assert sorted(path.read_text().split()) == ["after", "child", "parent"]


def test_a_stream_writes_whole_lines() -> None:
    with pipe() as (reader, fd):
        writer = LogWriter(fd)
        with io.TextIOWrapper(LineStream(writer, fd), "utf-8", write_through=True) as stream:  # type: ignore[type-var]
            stream.write("a")
            stream.write("b\nc")
            assert writer.flush(5)
            assert os.read(reader, 100) == b"ab\n"
            stream.write("\n")
            assert writer.flush(5)
            assert os.read(reader, 100) == b"c\n"
            stream.write("x" * 70_000)  # no line; not kept for ever
            assert len(os.read(reader, 100)) == 100
