"""Locust users for the proxy: whole answers, streams, model lists.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --model echo/echo

Streams are judged frame by frame, and reported under metrics of their own: time to the first token, tokens
per second, and streams that ended without `[DONE]`, which count as failures. The key, where the proxy wants
one, comes from SANIC_PROXY_KEY.
"""

from __future__ import annotations

import os
import time

from locust import HttpUser, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--model", default="echo/echo", help="the model to ask")
    parser.add_argument("--prompt", default="The quick brown fox jumps over the lazy dog. " * 5)
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second and user, at most")


class ChatUser(HttpUser):
    """Three streams for each whole answer, and now and then the list of models."""

    def wait_time(self) -> float:
        pace: float = constant_throughput(self.environment.parsed_options.rate)(self)
        return pace

    def on_start(self) -> None:
        if key := os.environ.get("SANIC_PROXY_KEY"):
            self.client.headers["authorization"] = f"Bearer {key}"

    def body(self, *, stream: bool) -> dict[str, object]:
        options = self.environment.parsed_options
        return {
            "model": options.model,
            "messages": [{"role": "user", "content": options.prompt}],
            "stream": stream,
        }

    @task(10)
    def whole(self) -> None:
        with self.client.post(
            "/v1/chat/completions", json=self.body(stream=False), name="whole", catch_response=True
        ) as reply:
            if reply.status_code == 200 and not reply.json()["choices"]:
                reply.failure("no choices")

    @task(30)
    def streamed(self) -> None:
        started = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions",
            json=self.body(stream=True),
            name="stream",
            stream=True,
            catch_response=True,
        ) as reply:
            if reply.status_code != 200:
                reply.failure(f"status {reply.status_code}")
                return
            tokens, first, is_done = 0, None, False
            for line in reply.iter_lines():
                is_done = is_done or line == b"data: [DONE]"
                if b'"content":"' in line:
                    tokens += 1
                    first = first or time.perf_counter()
            if not is_done:
                reply.failure("cut: no [DONE]")
                return
        if first is not None:
            self.measure("first token", 1000 * (first - started))
            self.measure("ms per token", 1000 * (time.perf_counter() - first) / max(1, tokens))

    @task(1)
    def models(self) -> None:
        self.client.get("/v1/models", name="models")

    def measure(self, name: str, milliseconds: float) -> None:
        self.environment.events.request.fire(
            request_type="SSE", name=name, response_time=milliseconds, response_length=0, exception=None
        )
