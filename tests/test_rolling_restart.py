"""scripts/rolling-restart, with a real nginx and two real instances under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.instances import run, two_instances
from tests.support.load import Load
from tests.support.nginx import needs_nginx, running_nginx, tls_context, upstream_list
from tests.support.proxy import free_port, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, text_stream


@pytest.mark.slow
@pytest.mark.row(64, 73)
@needs_nginx
def test_both_instances_are_restarted_and_no_request_or_stream_is_lost(
    upstream: Upstream, tmp_path: Path
) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.seen.json.get("stream"):
            await exchange.stream(text_stream(*map(str, range(20))), pause_s=0.05)
        else:
            await exchange.answer(completion())

    upstream.on("answers", answer)
    settings = {**provider_settings(upstream), "SANIC_PROXY_ALLOWED_HOSTS": "localhost"}
    (tmp_path / "nginx").mkdir()
    with (
        two_instances(tmp_path, settings) as instances,
        running_nginx(tmp_path / "nginx", instances.ports) as nginx,
    ):
        before = instances.pids()
        with Load(nginx.port, "groq/answers", tls=tls_context()) as load:
            load.wait_for_some()
            listed = nginx.include.read_text()
            done = run(
                *("--include", nginx.include, "--reload", nginx.reload_command, "--drain", 20),
                *("--stop", instances.stop, "--start", instances.start, *instances.ports),
            )
            load.wait_for_some()
        assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{instances.log()}"
        assert done.stdout.count(": up") == 2
        assert not set(before) & set(instances.pids())
        assert nginx.include.read_text() == listed
        assert load.failures == []
        log = instances.log()
    assert log.count("Worker ready") == 4
    assert "ended=client_left" not in log
    assert "Traceback" not in log


def test_an_instance_that_does_not_start_stays_down_and_the_other_is_not_restarted(tmp_path: Path) -> None:
    with running_proxy({}) as proxy:
        include = tmp_path / "list.conf"
        include.write_text(upstream_list([free_port(), proxy.port]))
        dead = int(include.read_text().partition(":")[2].partition(" ")[0])
        done = run(
            *("--include", include, "--reload", "true", "--stop", "true", "--start", "true"),
            *("--ready=1", dead, proxy.port),
        )
        assert done.returncode == 1
        assert f"{dead} does not become ready" in done.stdout
        first, second = include.read_text().splitlines()
        assert first.endswith(" down;")
        assert "down" not in second
        assert proxy.request("GET", "/health").status == 200
        # Another try takes the mark for what it is, but finds no other instance once that one is down, too.
        include.write_text(f"{first}\n{second.replace(';', ' down;')}\n")
        again = run("--include", include, "--reload", "true", "--stop", "true", "--start", "true", proxy.port)
        assert (again.returncode, "no other instance" in again.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "scripts/rolling-restart"),
        (["8001"], "cannot be written"),
        (["--include"], "needs a value"),
        (["--wrong"], "--help"),
    ],
)
def test_wrong_arguments_change_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*(["--include", tmp_path / "none", *arguments] if arguments == ["8001"] else arguments))
    assert done.returncode == 2
    assert message in done.stderr


def test_a_port_that_is_not_listed_is_an_error(tmp_path: Path) -> None:
    include = tmp_path / "list.conf"
    include.write_text(upstream_list([8001, 8002]))
    done = run("--include", include, "8003")
    assert (done.returncode, done.stderr) == (2, f"{include} has no server 127.0.0.1:8003\n")


def test_help_names_each_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--include", "--reload", "--stop", "--start", "--host", "--drain", "--ready"):
        assert option in done.stdout
