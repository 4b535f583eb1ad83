"""Locust users for the proxy: whole answers, streams, model lists.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --model echo/echo

`scripts/loadtest` runs it with a proxy and an upstream of its own. The key, where the proxy wants one, comes
from SANIC_PROXY_KEY.

`POST whole`, `POST stream` and `GET models` are requests; their numbers are milliseconds to the end of the
answer, of a stream too. Streams are judged frame by frame (`sse_meter`), and one that is not whole is a
failure named for what was wrong. What is measured inside streams has lines of its own, of type SSE. Locust
takes every number for milliseconds, so their names contain the unit:

    first token [ms]         from the request to the first token, of whole streams
    token gap [ms]           between tokens, every gap of whole streams; 0 if both came in one read
    tokens/s [a rate]        tokens per second after the first, one number per whole stream; high is good, so
                             the slow streams are at Min, not at the high percentiles
    cut streams [ms]         how long a stream lasted that was not whole
    unfinished [ms]          how long a stream had lasted that was still going when the run ended

They are left out of `Aggregated`, which so counts requests and failures alone. The run's exit code is 1 if
any request failed, a stream was cut, or no request was sent.
"""

from __future__ import annotations

import os
import random
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, cast

import gevent
from locust import FastHttpUser, events
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, ResponseContextManager
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC, RequestStats, StatsEntry
from typing_extensions import override

from loadtest.sse_meter import StreamMeter, StreamReport

FIRST_TOKEN = "first token [ms]"
TOKEN_GAP = "token gap [ms]"
TOKEN_RATE = "tokens/s [a rate]"
CUT = "cut streams [ms]"
UNFINISHED = "unfinished [ms]"
KIND = "SSE"


class CutStream(Exception):
    """A stream that was not whole."""


class ProxyUser(FastHttpUser):
    """A client of the proxy, with a connection of its own. Its tasks are weighted when Locust has started."""

    insecure = False  # the key is sent to verified hosts only

    def __init__(self, environment: Environment) -> None:
        self._options = options_of(environment)
        self.network_timeout = self.connection_timeout = self._options.timeout
        key = os.environ.get("SANIC_PROXY_KEY")
        self.default_headers = {"authorization": f"Bearer {key}"} if key else {}
        super().__init__(environment)

    @override
    def wait_time(self) -> float:
        shortest, longest = self._options.think_time
        return random.uniform(shortest, longest)

    def send(self, name: str, *, is_stream: bool) -> ResponseContextManager:
        body = {
            "model": self._options.model,
            "messages": [{"role": "user", "content": self._options.prompt}],
            "stream": is_stream,
        }
        # Compressed, a stream could not be read line by line.
        headers = {"accept": "text/event-stream", "accept-encoding": "identity"} if is_stream else {}
        return self.client.post(
            "/v1/chat/completions",
            json=body,
            name=name,
            headers=headers,
            stream=is_stream,
            catch_response=True,
        )

    def whole(self) -> None:
        with self.send("whole", is_stream=False) as reply:
            if (problem := refusal(reply)) or (problem := flaw(reply, "choices")):
                reply.failure(problem)

    def models(self) -> None:
        with self.client.get("/v1/models", name="models", catch_response=True) as reply:
            if (problem := refusal(reply)) or (problem := flaw(reply, "data")):
                reply.failure(problem)

    def stream(self) -> None:
        started_s = time.perf_counter()
        with self.send("stream", is_stream=True) as reply:
            if problem := refusal(reply):
                reply.failure(problem)
                return
            try:
                report = read_stream(reply)
            except gevent.GreenletExit:
                self.note(UNFINISHED, 1000 * (time.perf_counter() - started_s))
                raise
            lasted_ms = 1000 * (time.perf_counter() - started_s)
            reply.request_meta["response_time"] = lasted_ms
            reply.request_meta["response_length"] = report.size_bytes
            if report.is_whole:
                self.note_tokens(report, started_s)
            else:
                self.note(CUT, lasted_ms)
                reply.failure(CutStream(report.fault))

    def note_tokens(self, report: StreamReport, started_s: float) -> None:
        if report.token_times_s:
            self.note(FIRST_TOKEN, 1000 * (report.token_times_s[0] - started_s))
        for gap_s in report.gaps_s:
            self.note(TOKEN_GAP, 1000 * gap_s)
        if report.tokens_per_s is not None:
            self.note(TOKEN_RATE, report.tokens_per_s)

    def note(self, name: str, value: float) -> None:
        """Count `value` in a line of its own.

        Not by the `request` event: that would count it among the requests in `Aggregated`.
        """
        # Locust declares whole milliseconds, and keeps fractions.
        self.environment.stats.get(name, KIND).log(cast("int", value), 0)


def refusal(reply: ResponseContextManager) -> str:
    """Why there is no answer to read, named so that equal reasons count together; empty if there is one."""
    if reply.status_code == 200:
        return ""
    if reply.status_code == 0:
        error = getattr(reply, "error", None)
        # A time-out comes wrapped, as the last of the attempts allowed, of which there was one.
        return f"no answer: {type(getattr(error, 'original', error)).__name__}"
    try:
        code = reply.json()["error"]["code"]
    except (ValueError, LookupError, TypeError):
        code = "no error object"
    return f"status {reply.status_code} {code}"


def flaw(reply: ResponseContextManager, field: str) -> str:
    """What is wrong with a JSON answer whose `field` must be a list with something in it."""
    try:
        found = reply.json()[field]
    except (ValueError, LookupError, TypeError):
        return f"not JSON with {field}"
    return "" if isinstance(found, list) and found else f"no {field}"


def read_stream(reply: ResponseContextManager) -> StreamReport:
    meter = StreamMeter()
    try:
        for line in lines_of(reply):
            meter.feed(line, time.perf_counter())
    except FAILURE_EXCEPTIONS as exc:
        return meter.report(broken_by=type(exc).__name__)
    return meter.report()


def lines_of(reply: ResponseContextManager) -> Iterator[bytes]:
    """Each line as soon as it has arrived.

    The reply's own `iter_content` and `iter_lines` wait until a block is full, which would make the first
    token late and hide the gaps; its `readline` splits at CRLF, which streams do not have.
    """
    response = cast("Any", reply)._response
    while line := response.readline(b"\n"):
        yield line
    if rest := response.read():
        yield rest


def options_of(environment: Environment) -> Namespace:
    """The command line: Locust's options and ours."""
    options: Namespace | None = environment.parsed_options
    assert options is not None
    return options


def not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("sanic-proxy options")
    add = group.add_argument
    add("--model", default="echo/echo", help="the model of the requests")
    add("--prompt", default="The quick brown fox jumps over the lazy dog. " * 5, help="the prompt")
    add("--whole-weight", type=not_negative, default=10, help="share of whole answers among the requests")
    add("--stream-weight", type=not_negative, default=30, help="share of streams")
    add("--models-weight", type=not_negative, default=1, help="share of model lists")
    add(
        "--think-time",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        default=[0.1, 0.5],
        help="seconds a user waits between requests, evenly spread",
    )
    add("--timeout", type=float, default=120.0, help="seconds of silence until an answer counts as broken")


@events.init.add_listener
def weigh_tasks(environment: Environment, **_others: object) -> None:
    options = options_of(environment)
    tasks = (
        [ProxyUser.whole] * options.whole_weight
        + [ProxyUser.stream] * options.stream_weight
        + [ProxyUser.models] * options.models_weight
    )
    if not tasks:
        raise SystemExit("one of the weights must be above 0")
    # On the class and not on each user, as the report reads the ratio of the tasks there.
    ProxyUser.tasks = list(tasks)


@events.quitting.add_listener
def judge(environment: Environment, **_others: object) -> None:
    """Print the outcome in a few lines on stdout (Locust's own go to stderr), and set the exit code by it."""
    if environment.runner is None or isinstance(environment.runner, WorkerRunner):
        return
    if options_of(environment).csv_prefix:
        # The tables are written once per interval and not at the end: let the last answers get into them.
        gevent.sleep(1.5 * CSV_STATS_INTERVAL_SEC)
    stats = environment.stats
    cut = stats.get(CUT, KIND).num_requests
    has_failed = bool(stats.num_failures or cut or not stats.num_requests or environment.runner.exceptions)
    environment.process_exit_code = int(has_failed)
    print(
        f"{stats.num_requests} requests, {stats.num_failures} failed ({100 * stats.total.fail_ratio:.2f} %); "
        f"{cut} streams cut, {stats.get(UNFINISHED, KIND).num_requests} unfinished"
    )
    for entry in sorted(stats.entries.values(), key=lambda entry: (entry.method, entry.name)):
        if entry.num_requests:
            print(line_of(entry))
    for name, count in failures(stats):
        print(f"failed {count} times: {name}")


def line_of(entry: StatsEntry) -> str:
    middle, high, top = (entry.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99))
    return (
        f"  {entry.method:4} {entry.name:18} {entry.num_requests:7} times"
        f"  min {entry.min_response_time or 0:8.1f}  mean {entry.avg_response_time:8.1f}"
        f"  p50 {middle:6}  p95 {high:6}  p99 {top:6}  max {entry.max_response_time:8.1f}"
    )


def failures(stats: RequestStats) -> list[tuple[str, int]]:
    return [
        (f"{error.method} {error.name}: {error.error}", error.occurrences) for error in stats.errors.values()
    ]
