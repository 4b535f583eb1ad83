"""List every Python call that a worker makes for one warm chat request, whole and streamed, in order.

    python -m loadtest.trace_request              # the walk of both requests, call by call
    python -m loadtest.trace_request --summary    # the counts alone

The list is a map of the code for a newcomer, from the bytes that arrive on the client's connection to the
bytes that leave it. The counts show what a change adds to each request: calls, and changes of module, which
is how often a reader has to turn to another file while following the calls.

Calls of functions in C do not appear, nor those of the standard library. The frames of the streamed answer
arrive one by one.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from types import CodeType, FrameType

from typing_extensions import override

from loadtest.bench.gateways import free_port
from loadtest.bench.load import Endpoint, KeptConnection
from loadtest.bench.processes import PASSED_ON

CLIENT_KEY = "trace-client-key"
WORDS = 8
MODEL = f"openai/good;words={WORDS};pause=0.02"
WARM_UP_REQUESTS = 3
TIMEOUT_S = 30.0
# After an answer has arrived, the worker still does what follows it, for example the access log's record.
REST_S = 0.5


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a Python function.

    `module` is a path below the proxy's package, below Sanic's with its name in front, or `generated` for
    code that was compiled from a string: constructors of dataclasses and Sanic's router.
    """

    module: str
    function: str
    line: int

    @override
    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}"


def package_folders() -> dict[str, str]:
    """What the modules below a folder are called in the list: the proxy's own have no prefix."""
    prefixes = {
        "sanic_proxy": "",
        "sanic": "sanic/",
        "sanic_routing": "sanic_routing/",
        "sanic_ext": "sanic_ext/",
    }
    specs = {prefix: find_spec(name) for name, prefix in prefixes.items()}
    return {
        f"{folder}/": prefix
        for prefix, spec in specs.items()
        if spec is not None
        for folder in spec.submodule_search_locations or ()
    }


def call_of(code: CodeType, folders: Mapping[str, str]) -> Call | None:
    """The call of a function below one of the folders, or of generated code; None for others."""
    for folder, prefix in folders.items():
        if code.co_filename.startswith(folder):
            module = prefix + code.co_filename.removeprefix(folder).removesuffix(".py")
            return Call(module, code.co_qualname, code.co_firstlineno)
    is_generated = code.co_filename.startswith("<") and not code.co_filename.startswith("<frozen")
    return Call("generated", code.co_qualname, code.co_firstlineno) if is_generated else None


def module_changes(calls: Sequence[Call]) -> int:
    """How many calls are in another module than the call before."""
    return sum(first.module != second.module for first, second in pairwise(calls))


def summary(title: str, calls: Sequence[Call]) -> str:
    """The counts in one line."""
    frameworks = sum(call.module.startswith("sanic") for call in calls)
    modules = len({call.module for call in calls})
    return (
        f"{title}: {len(calls)} Python calls ({frameworks} of them Sanic's), {module_changes(calls)} module"
        f" changes; {len(set(calls))} functions in {modules} modules"
    )


def walk(calls: Sequence[Call]) -> str:
    """The calls in order, a line each; equal ones in a row are counted."""
    lines: list[str] = []
    count = 0
    for call, following in zip(calls, [*calls[1:], None], strict=True):
        count += 1
        if call != following:
            lines.append(f"    {call}" + (f"  x {count}" if count > 1 else ""))
            count = 0
    return "\n".join(lines)


@dataclass
class Recorder:
    """Records calls of the thread whose profile function it is, while it is switched on."""

    is_on: bool = False
    codes: list[CodeType] = field(default_factory=list)

    def profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if self.is_on and event == "call":
            self.codes.append(frame.f_code)

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.codes.clear()
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False

    @property
    def calls(self) -> list[Call]:
        folders = package_folders()
        return [call for code in self.codes if (call := call_of(code, folders)) is not None]


@contextmanager
def scripted_upstream() -> Iterator[int]:
    """The scripted upstream in a process of its own; gives its port."""
    argv = (sys.executable, "-m", "loadtest.faulty_upstream")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


def exchange(connection: KeptConnection, endpoint: Endpoint, *, is_stream: bool) -> None:
    """Send one request and read the answer. Raises RuntimeError for an error."""
    response = connection.send(endpoint.request(endpoint.body(is_stream=is_stream)))
    body = response.read()
    if response.status != 200 or (is_stream and not body.endswith(b"data: [DONE]\n\n")):
        raise RuntimeError(f"status {response.status}: {body[-300:].decode(errors='replace')}")


def trace(recorder: Recorder, port: int) -> dict[str, list[Call]]:
    """The calls of one warm request of each kind, on one connection."""
    traced = {}
    connection = KeptConnection(port, TIMEOUT_S)
    endpoint = Endpoint(port, MODEL, (("Authorization", f"Bearer {CLIENT_KEY}"),))
    for title, is_stream in (("whole request", False), ("streamed request", True)):
        for _ in range(WARM_UP_REQUESTS):
            exchange(connection, endpoint, is_stream=is_stream)
        time.sleep(REST_S)
        with recorder.recording():
            exchange(connection, endpoint, is_stream=is_stream)
            time.sleep(REST_S)
        traced[title] = recorder.calls
    connection.close()
    return traced


def clean_environment(upstream_port: int) -> None:
    """Set the proxy's settings, before it is imported; settings of the caller do not count."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(
        SANIC_PROXY_ACCESS_LOG="off",
        SANIC_PROXY_API_KEYS=CLIENT_KEY,
        OPENAI_API_KEY="trace-provider-key",
        OPENAI_BASE_URL=f"http://127.0.0.1:{upstream_port}/v1",
    )


def serve_and_trace(upstream_port: int) -> dict[str, list[Call]]:
    """Run the proxy in this thread, send requests from another one, stop it."""
    clean_environment(upstream_port)
    from sanic import Sanic  # noqa: PLC0415 - after the settings

    from sanic_proxy.app import app  # noqa: PLC0415

    recorder = Recorder()
    is_started = threading.Event()
    port = free_port()

    @app.after_server_start
    async def begin(_: object) -> None:
        sys.setprofile(recorder.profile)
        is_started.set()

    def client() -> dict[str, list[Call]]:
        if not is_started.wait(TIMEOUT_S):
            raise RuntimeError(f"the proxy did not start within {TIMEOUT_S:.0f} s")
        return trace(recorder, port)

    with ThreadPoolExecutor(1) as threads:
        traced = threads.submit(client)
        traced.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGINT))  # stops the proxy
        app.prepare(host="127.0.0.1", port=port, single_process=True, access_log=False, motd=False)
        Sanic.serve_single(app)
        sys.setprofile(None)
        return traced.result()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/trace-request", description="List the Python calls of one warm chat request."
    )
    parser.add_argument("--summary", action="store_true", help="print the counts alone")
    is_summary = parser.parse_args().summary
    with scripted_upstream() as upstream_port:
        traced = serve_and_trace(upstream_port)
    for title, calls in traced.items():
        print(summary(title, calls))
        if not is_summary:
            by_module = Counter(call.module for call in calls).most_common()
            print("  calls by module:", ", ".join(f"{module} {count}" for module, count in by_module))
            print(walk(calls), end="\n\n")


if __name__ == "__main__":
    main()
