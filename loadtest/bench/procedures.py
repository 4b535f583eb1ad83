"""Measurements that are more than one load: memory, bodies in flight, imports, starts."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

from loadtest.bench.cases import case
from loadtest.bench.fixture import Fixture, await_health
from loadtest.bench.gateways import found, free_port, proxy, proxy_python, sanic_argv
from loadtest.bench.load import Endpoint, LoadError, Metrics
from loadtest.bench.processes import (
    Command,
    Session,
    child_environment,
    forget_peak,
    machine_lock,
    peak_mib,
    pinned,
    rss_mib,
)

Results = dict[str, Metrics]
HELD_STREAMS = 500
REQUESTS = 200_000
QUICK_REQUESTS = 20_000
BODIES_IN_FLIGHT = 16
BODY_BYTES = 2**20
# Answers are held back for this long, so that all bodies are there before the first answer.
IN_FLIGHT_MS = 1500
# The benchmark's own interpreter; the environment of a proxy has no sanic-ext.
WITH_SANIC_EXT = Path(sys.executable)
IMPORTS = {"proxy": "import sanic_proxy.app", "libraries": "import sanic, sanic_ext, aiohttp"}


def _workers_mib(session: Session) -> float:
    return sum(map(rss_mib, session.workers()))


# Memory of a worker


def memory(fixture: Fixture, is_quick: bool) -> Results:
    """MiB of an idle worker, per stream held open, and between a tenth of many requests and all of them."""
    figures: Metrics = {}
    with fixture.fresh("proxy") as (endpoint, session), machine_lock():
        session.settle()
        figures["idle_mib"] = _workers_mib(session)
        fixture.script(hold=1)
        with fixture.loader.held_streams(endpoint, 1, 100):
            pass  # what the first stream ever needs is not the streams'
        before = _workers_mib(session)
        with fixture.loader.held_streams(endpoint, HELD_STREAMS, 100) as report:
            if report["held"] < HELD_STREAMS:
                raise LoadError(f"only {report['held']:.0f} of {HELD_STREAMS} streams could be opened")
            time.sleep(1)
            figures["stream_mib"] = (_workers_mib(session) - before) / HELD_STREAMS
    return {"proxy": {**figures, **_growth(fixture, QUICK_REQUESTS if is_quick else REQUESTS)}}


def _growth(fixture: Fixture, requests: int) -> Metrics:
    found("wrk")
    with fixture.fresh("proxy") as (endpoint, session):
        done = _send(fixture, endpoint, requests // 10)
        session.settle()
        early = _workers_mib(session)
        done += _send(fixture, endpoint, requests - done)
        session.settle()
        return {"growth_after": float(done), "growth_mib": _workers_mib(session) - early}


def _send(fixture: Fixture, endpoint: Endpoint, requests: int) -> int:
    """Send at least so many requests; the machine is free for others now and then."""
    done = 0
    while done < requests:
        with machine_lock():
            fixture.script()
            done += int(fixture.loader.run(case("whole"), endpoint, 2)["requests"])
    return done


# Bodies in flight


def large_memory(fixture: Fixture, _: bool) -> Results:
    """Growth of a fresh worker's peak with 16 requests of 1 MiB in flight, in bodies per request."""
    with fixture.fresh("proxy") as (endpoint, session), machine_lock():
        session.settle()
        fixture.script(delay_ms=IN_FLIGHT_MS)
        body = endpoint.body(is_stream=False, size_bytes=BODY_BYTES)
        workers = session.workers()
        for pid in workers:
            forget_peak(pid)
        before = sum(map(rss_mib, workers))
        with pinned(fixture.cores.load), ThreadPoolExecutor(BODIES_IN_FLIGHT) as pool:
            statuses = list(pool.map(lambda _: _status(endpoint, body), range(BODIES_IN_FLIGHT)))
        if failed := [status for status in statuses if status != "200"]:
            raise LoadError(f"a request of 1 MiB failed: {failed[0]}")
        growth = sum(map(peak_mib, workers)) - before
    return {
        "proxy": {"bodies_per_request": growth * 2**20 / BODIES_IN_FLIGHT / BODY_BYTES, "growth_mib": growth}
    }


def _status(endpoint: Endpoint, body: bytes) -> str:
    try:
        return str(endpoint.send(body, timeout_s=20)[0])
    except (OSError, HTTPException) as exc:
        return str(exc)


# Imports and starts


def imports(fixture: Fixture, is_quick: bool) -> Results:
    """CPU seconds of an interpreter that imports the proxy, and of one for its libraries; in turns."""
    pythons = {"proxy": proxy_python(fixture.paths), "libraries": WITH_SANIC_EXT}
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with machine_lock(), pinned(fixture.cores.gateway):
        for name, statement in IMPORTS.items():
            _import_s(fixture, pythons[name], statement)  # compiles what has no .pyc yet
        for _ in range(5 if is_quick else 11):
            for name, statement in IMPORTS.items():
                seconds[name].append(_import_s(fixture, pythons[name], statement))
    return {name: {"import_s": statistics.median(each)} for name, each in seconds.items()}


def _import_s(fixture: Fixture, python: Path, statement: str) -> float:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run(
        (str(python), "-c", statement),
        env=child_environment({"PYTHONPATH": str(fixture.paths.proxy_root)}),
        cwd=fixture.paths.scratch,
        check=True,
        timeout=60,
    )
    return spent() - before


def starts(fixture: Fixture, is_quick: bool) -> Results:
    """Seconds from a start to the first 200 of GET /health: the proxy and an empty app, in turns."""
    paths = fixture.paths

    def of_proxy(port: int) -> tuple[tuple[str, ...], Mapping[str, str]]:
        launch = proxy(paths, port)
        return launch.argv, launch.env

    def of_empty(port: int) -> tuple[tuple[str, ...], Mapping[str, str]]:
        return sanic_argv(WITH_SANIC_EXT, "loadtest.bench.empty:app", port), {"PYTHONPATH": str(paths.root)}

    seconds: dict[str, list[float]] = {"proxy": [], "empty": []}
    for _ in range(3 if is_quick else 5):
        for name, made in (("proxy", of_proxy), ("empty", of_empty)):
            port = free_port()
            argv, env = made(port)
            with machine_lock():
                seconds[name].append(
                    _start_s(fixture, Command(argv, env, paths.scratch, paths.scratch / "start.log"), port)
                )
    return {name: {"start_s": statistics.median(each)} for name, each in seconds.items()}


def _start_s(fixture: Fixture, command: Command, port: int) -> float:
    began = time.monotonic()
    session = Session(command, fixture.cores.gateway)
    try:
        await_health(port, session, 30)
        return time.monotonic() - began
    finally:
        session.stop()


PROCEDURES: Mapping[str, Callable[[Fixture, bool], Results]] = {
    "memory": memory,
    "large_memory": large_memory,
    "imports": imports,
    "starts": starts,
}
