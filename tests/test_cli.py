"""The `sanic-proxy` command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from sanic_proxy import __version__
from sanic_proxy.cli import main
from tests.support.proxy import clean_environment, free_port, start_proxy

KEY = "gsk-canary-0123456789"


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sanic_proxy", *arguments],
        cwd=directory,
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_check_prints_the_table_without_keys(tmp_path: Path) -> None:
    done = run(tmp_path, "check", GROQ_API_KEY=KEY, HTTPS_PROXY=f"http://{KEY}@proxy")
    assert done.returncode == 0
    assert "https://api.groq.com/openai/v1" in done.stdout
    assert f"...{KEY[-4:]}" in done.stdout
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
    done = run(tmp_path, "check", "--no-router", SANIC_PROXY_ROUTER="on", STRAICO_API_KEY=KEY)
    assert "router off" in done.stdout
    assert run(tmp_path, "check", "--config", "a.toml").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve"], ["replay"], ["check"], ["models"], ["route"], ["init"], ["schema"], ["completion"]],
    ids=" ".join,
)
def test_help_has_a_description_an_example_and_the_exit_status(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown
    assert "sanic-proxy" in shown.split("example")[1]
    assert "exit status: 0; 1 if" in shown
    assert max(map(len, shown.splitlines())) <= 116


def test_init_writes_files_that_serve_can_start_with(tmp_path: Path) -> None:
    done = run(tmp_path, "init", GROQ_API_KEY=KEY, SANIC_PROXY_API_KEYS=f"{KEY}$'x")
    assert (done.returncode, done.stderr) == (0, "")
    assert KEY not in done.stdout
    assert "providers: groq" in done.stdout
    checked = run(tmp_path, "check")
    assert checked.returncode == 0
    assert "https://api.groq.com/openai/v1" in checked.stdout
    assert "client keys: ...9$'x" in checked.stdout
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_init_replaces_no_file_and_says_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("mine")
    (tmp_path / "proxy.toml").symlink_to(tmp_path / "elsewhere")
    done = run(tmp_path, "init", GROQ_API_KEY=KEY)
    assert done.returncode == 1
    assert done.stdout.count("exists, not changed") == 2
    assert "proxy.schema.json: written" in done.stdout
    assert (tmp_path / ".env").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert run(tmp_path, "init", "--directory", "nowhere").stderr.count("\n") == 1


def test_the_schema_and_the_completion_scripts_are_printed(tmp_path: Path) -> None:
    assert json.loads(run(tmp_path, "schema").stdout)["title"] == "sanic-proxy"
    done = run(tmp_path, "completion", "bash", SANIC_PROXY_PORT="wrong")
    script = (
        f"{done.stdout}\nCOMP_WORDS=(sanic-proxy ch) COMP_CWORD=1\n_shtab_sanic_proxy\necho ${{COMPREPLY[@]}}"
    )
    completed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert completed.stdout.split() == ["check"]
    assert run(tmp_path, "completion", "tcsh").returncode == 2


def test_check_lists_keys_models_and_what_is_off(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[models.fast]\ntargets = ['groq/m']\n")
    done = run(
        tmp_path, "check", "--config", "a.toml", GROQ_API_KEY=f"{KEY},{KEY}-second", SANIC_PROXY_API_KEYS=KEY
    )
    assert f"2: ...{KEY[-4:]}, ...cond" in done.stdout
    assert "model fast: groq/m" in done.stdout
    assert "straico (STRAICO_API_KEY)" in done.stdout
    assert re.search(r"^price table: of 20\d\d-\d\d-\d\d, \d+ days old$", done.stdout, re.M)
    assert KEY not in done.stdout


def test_a_wrong_flag_is_named_as_the_flag(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--port", "x")
    assert done.returncode == 1
    assert "--port: expected a whole number" in done.stderr
    assert run(tmp_path, "check", "--prot", "1").returncode == 2


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.strip() == f"sanic-proxy {__version__}"


def test_a_command_imports_no_router_that_it_does_not_need() -> None:
    code = "import sys, sanic_proxy.cli; sys.exit('sanic_proxy.routing.router' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def serve_once(directory: Path, port: int, *arguments: str, workers: int = 1, **settings: str) -> str:
    """Start a proxy, wait until it answers on `port` and has `workers`, stop it. Returns its log."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=clean_environment({"SANIC_PROXY_LAME_DUCK_SECONDS": "0", **settings}),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert answer(f"http://127.0.0.1:{port}/health") == {"status": "ok"}
        until = time.monotonic() + 120
        while (directory / "log").read_text().count("Worker ready") < workers and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return (directory / "log").read_text()


_SANIC = ("-m", "sanic", "sanic_proxy.app")
_SERVE = ("-m", "sanic_proxy", "serve")
_IN_CODE = ("-c", "from sanic_proxy.app import app; app.run(single_process=True)")
_DOTENV = {".env": "SANIC_PROXY_PORT=PORT\nSANIC_PROXY_HOST=127.0.0.1\nSANIC_PROXY_WORKERS=2\n"}
_TOML = {".env": "SANIC_PROXY_CONFIG=a.toml\nSANIC_PROXY_WORKERS=2\n", "a.toml": "[proxy]\nport = PORT\n"}


@pytest.mark.parametrize(
    ("arguments", "files", "workers"),
    [
        ((*_SERVE, "--port", "PORT", "--workers", "2", "--log-level", "info"), {}, 2),
        (("-m", "sanic_proxy"), {".env": "SANIC_PROXY_PORT=PORT\nSANIC_PROXY_WORKERS=1\n"}, 1),
        (("-m", "sanic_proxy", "--single-process"), _DOTENV, 1),
        (_SANIC, _DOTENV, 2),
        ((*_SANIC, "--workers", "1"), _TOML, 1),
        ((*_SANIC, "--single-process"), _TOML, 1),
        (_IN_CODE, {".env": "SANIC_PROXY_PORT=PORT\n"}, 1),
    ],
    ids=["flags", "no command", "single", "sanic", "toml", "sanic single", "code"],
)
def test_every_start_command_takes_address_and_workers_from_flags_and_settings(
    tmp_path: Path, arguments: tuple[str, ...], files: dict[str, str], workers: int
) -> None:
    """And logs the address once, when it is ready."""
    port = free_port()
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("PORT\n", f"{port}\n"))
    words = (str(port) if argument == "PORT" else argument for argument in arguments)
    log = serve_once(tmp_path, port, *words, workers=workers)
    assert log.count("Worker ready") == workers
    assert log.splitlines().count(f"ready on http://127.0.0.1:{port}") == 1
    assert log.count("ready on") == 1


_STARTS = [
    (*_SERVE, "--workers", "2"),
    (*_SERVE, "--single-process"),
    (*_SANIC, "--workers", "2"),
    (*_SANIC, "--single-process"),
    _IN_CODE,
]


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--single-process",)])
def test_it_logs_its_unix_socket_when_ready(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path has to be short
        path = f"{folder}/proxy.sock"
        proxy = start_proxy(tmp_path, {}, "--unix", path, *arguments)
        try:
            proxy.wait_for_log(f"ready on unix:{path}\n", wait_s=30)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
        finally:
            assert proxy.stop() == 0


@pytest.mark.parametrize("arguments", _STARTS)
def test_a_port_in_use_is_one_line_and_a_failure(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=clean_environment({"SANIC_PROXY_PORT": str(port)}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"sanic-proxy: cannot listen on 127.0.0.1:{port}: the port is in use")
    assert done.stderr.count("\n") == 1


def answer(url: str) -> object:
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                return json.load(reply)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def test_a_route_is_explained_without_sending_anything(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[models.fast]\ntargets = ['groq/a', 'ollama/b']\n")
    settings = {
        "SANIC_PROXY_CONFIG": "a.toml",
        "GROQ_API_KEY": KEY,
        "OLLAMA_BASE_URL": "http://127.0.0.1:9/v1",
    }
    done = run(tmp_path, "route", "fast", "--fail", "groq/a=timeout", **settings)
    assert done.returncode == 0
    assert "groq/a: timeout; moved to ollama/b\n  ollama/b: ok; the answer goes to the client" in done.stdout
    assert KEY not in done.stdout
    done = run(tmp_path, "route", "slow/x", **settings)
    assert done.returncode == 1
    assert "'slow' is not the name of a provider" in done.stderr


def test_litellms_file_is_explained_as_toml(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model_list:\n"
        f"  - {{model_name: m, litellm_params: {{model: groq/x, api_key: {KEY}}}}}\n"
        "litellm_settings: {cache: true}\n"
    )
    done = run(tmp_path, "check", "--explain", "--config", "c.yaml")
    assert done.returncode == 0
    assert '[models.m]\ntargets = ["groq/x"]' in done.stdout
    assert "# line 3: litellm_settings.cache: ignored: answers are not cached" in done.stdout
    assert KEY not in done.stdout
    table = run(tmp_path, "check", "--config", "c.yaml")
    assert "model m: groq/x" in table.stdout
    assert run(tmp_path, "check", "--explain").returncode == 1
