"""How long /health takes while large bodies arrive: `python -m loadtest.large_bodies`.

Starts a proxy with one worker, a provider that discards what it receives, and a process with one client per
body. All bodies are sent at once; meanwhile this process requests /health on one connection, over and over.
Printed are the delays of /health, beside the lag of this process itself: what the machine adds to them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    }
).encode()


def image_body(size_bytes: int) -> bytes:
    """A chat with one image in base64."""
    image = base64.b64encode(os.urandom(size_bytes * 3 // 4)).decode()
    content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]
    return json.dumps({"messages": [{"role": "user", "content": content}], "model": "groq/m"}).encode()


def escapes_body(size_bytes: int) -> bytes:
    """A chat in a language that most clients send as escapes."""
    text = "\u4e2d" * (size_bytes // 6)
    return json.dumps({"messages": [{"role": "user", "content": text}], "model": "groq/m"}).encode()


def code_body(size_bytes: int) -> bytes:
    """A chat about source code, with tools that have a parameter `model`."""
    source = Path(__file__).read_text("utf-8")
    text = source * (size_bytes // len(source) + 1)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"model": {"type": "string"}}}}]
    return json.dumps(
        {"tools": tools, "messages": [{"role": "user", "content": text[:size_bytes]}], "model": "groq/m"}
    ).encode()


BODIES = {"image": image_body, "escapes": escapes_body, "code": code_body}


def discard_requests(port: int) -> None:
    """A provider that reads each body to its end and answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                left = int(length[1]) if length else 0
                while left:
                    left -= len(await reader.read(min(left, 1 << 20)) or b"")
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(ANSWER), ANSWER)
                )

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20)
        await server.serve_forever()

    asyncio.run(run())


def send_bodies(port: int, body: bytes, count: int, is_over: Event) -> None:
    """Send `count` bodies at once, each on its own connection; count the answers."""
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    )
    statuses: list[str] = []

    def send() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as client:
            with suppress(ConnectionError):
                client.sendall(head)
                client.sendall(body)
            answer = b""
            with suppress(ConnectionError):
                while piece := client.recv(65536):
                    answer += piece
            statuses.append(answer[9:12].decode() or "none")

    threads = [threading.Thread(target=send) for _ in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - began
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(f"answers by status: {counts} in {took_s:.2f} s", flush=True)
    is_over.set()


def health_delays(port: int, is_over: Event) -> tuple[list[float], list[float]]:
    """The delays of /health until `is_over`, and this process's own lag; seconds."""
    delays, lags = [], []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not is_over.is_set():
            began = time.monotonic()
            client.sendall(HEALTH)
            client.recv(65536)
            answered = time.monotonic()
            delays.append(answered - began)
            time.sleep(0.001)
            lags.append(time.monotonic() - answered - 0.001)
    return delays, lags


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def described(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return (
        f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms, max {1000 * ordered[-1]:.1f} ms ({len(ordered)})"
    )


def measure(kind: str, count: int, size_bytes: int) -> tuple[list[float], list[float]]:
    """Run everything once."""
    body = BODIES[kind](size_bytes)
    provider_port, port = free_port(), free_port()
    is_over = multiprocessing.Event()
    provider = multiprocessing.Process(target=discard_requests, args=(provider_port,), daemon=True)
    provider.start()
    wait_for_port(provider_port)
    settings = {
        "GROQ_API_KEY": "k" * 20,
        "GROQ_BASE_URL": f"http://127.0.0.1:{provider_port}/v1",
        "SANIC_PROXY_LAME_DUCK_SECONDS": "0",
        "SANIC_PROXY_ACCESS_LOG": "off",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "sanic", "sanic_proxy.app", "--single-process", f"--port={port}"]
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("wb") as log:
        proxy = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **settings}, stdout=log, stderr=log
        )
        try:
            wait_for_port(port)
            sender = multiprocessing.Process(
                target=send_bodies, args=(port, body, count, is_over), daemon=True
            )
            sender.start()
            return health_delays(port, is_over)
        finally:
            proxy.terminate()
            proxy.wait(30)
            provider.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--kind", choices=sorted(BODIES), default="image")
    options = parser.parse_args()
    delays, lags = measure(options.kind, options.bodies, int(options.megabytes * 1e6))
    print(f"/health   {described(delays)}")
    print(f"own lag   {described(lags)}")


if __name__ == "__main__":
    main()
