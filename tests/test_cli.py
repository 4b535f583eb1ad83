"""The `sanic-proxy` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sanic_proxy import __version__
from tests.support.proxy import clean_environment, free_port

KEY = "gsk-canary-0123456789"


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sanic_proxy", *arguments],
        cwd=directory,
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_check_prints_the_table_without_keys(tmp_path: Path) -> None:
    done = run(tmp_path, "check", GROQ_API_KEY=KEY, HTTPS_PROXY=f"http://{KEY}@proxy")
    assert done.returncode == 0
    assert "https://api.groq.com/openai/v1" in done.stdout
    assert "****" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_check_lists_every_problem_and_fails(tmp_path: Path) -> None:
    done = run(tmp_path, "check", SANIC_PROXY_PORT="x", SANIC_PROXY_TIMEOUT_IDLE="y")
    assert done.returncode == 1
    assert done.stderr.count("sanic-proxy: ") == 2


def test_check_refuses_an_open_proxy_beyond_loopback(tmp_path: Path) -> None:
    assert run(tmp_path, "check", SANIC_PROXY_HOST="0.0.0.0").returncode == 1
    assert run(tmp_path, "check", SANIC_PROXY_HOST="0.0.0.0", SANIC_PROXY_ALLOW_OPEN="1").returncode == 0


def test_models_are_printed_as_json(tmp_path: Path) -> None:
    done = run(tmp_path, "models")
    assert "echo/echo" in [entry["id"] for entry in json.loads(done.stdout)["data"]]


def test_models_of_a_provider_that_is_down_are_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "models", OLLAMA_BASE_URL="http://127.0.0.1:9/v1")
    assert done.returncode == 1
    assert "connection" in done.stderr


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[proxy]\ntimeout_idle = 'wrong'\n")
    assert "router off" in run(tmp_path, "check", "--no-router", SANIC_PROXY_ROUTER="on").stdout
    assert run(tmp_path, "check", "--config", "a.toml").returncode == 1


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.strip() == f"sanic-proxy {__version__}"
    assert run(tmp_path).returncode == 2


def test_serve_starts_the_proxy_with_its_flags(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "sanic_proxy",
        "serve",
        "--port",
        str(port),
        "--workers",
        "1",
        "--log-level",
        "error",
    ]
    with (tmp_path / "log").open("wb") as log:
        env = clean_environment({"SANIC_PROXY_LAME_DUCK_SECONDS": "0"})
        process = subprocess.Popen(
            command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        assert answer(f"http://127.0.0.1:{port}/health") == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def answer(url: str) -> object:
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                return json.load(reply)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
