"""The Dockerfile and the compose files keep the rules of a small, locked-down image."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import VARIABLES
from sanic_proxy.server.supervisor import MARGIN_S

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts/deploy/docker"
DOCKERFILE = re.sub(r"\\\n\s*", " ", (FOLDER / "Dockerfile").read_text("utf-8"))
COMPOSE = sorted((ROOT / "scripts/deploy/compose").glob("*.yaml"))


def lines(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)


def test_only_pinned_wheels_are_installed() -> None:
    installs = re.findall(r"pip install [^&\n]*", DOCKERFILE)
    assert len(installs) == 3
    for command in installs:
        assert (
            "--progress-bar off --require-hashes --only-binary :all:" in command
            or "--no-deps /wheels" in command
        )
    assert "curl" not in DOCKERFILE
    assert lines("ADD") == []
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", lines("ARG")[0].removeprefix("BASE="))


def test_it_runs_as_a_user_of_its_own_that_the_volume_belongs_to() -> None:
    assert lines("USER") == ["10001:10001"]
    (created,) = (line for line in lines("RUN") if "useradd" in line)
    assert "--uid 10001" in created
    assert "--owner=10001 --group=10001 --mode=0700 /var/lib/sanic-proxy" in created
    assert "SANIC_PROXY_STATE_DIR=/var/lib/sanic-proxy" in lines("ENV")[0]


def test_it_says_that_it_is_healthy_and_how_it_stops() -> None:
    command = json.loads(lines("HEALTHCHECK")[0].partition(" CMD ")[2])
    compile(command[2], "health check", "exec")
    assert "/health" in command[2]
    assert lines("STOPSIGNAL") == ["SIGTERM"]
    assert [json.loads(line) for line in lines("ENTRYPOINT") + lines("CMD")] == [["sanic-proxy"], ["serve"]]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    allowed = [
        line[1:]
        for line in (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line[:1] == "!"
    ]
    copied = [source for line in lines("COPY") if "--from" not in line for source in line.split()[:-1]]
    assert copied
    assert [source for source in copied if source not in allowed or not (ROOT / source).exists()] == []


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.stem)
def test_compose_files_start_the_image_as_it_is_meant(path: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(path.read_text("utf-8"))
    proxies = [s for name, s in document["services"].items() if s.get("image") == "sanic-proxy"]
    assert proxies
    ending = load({}, tmp_path).ending
    for service in proxies:
        assert int(service["stop_grace_period"].removesuffix("s")) > (
            ending.lame_duck_s + ending.drain_s + MARGIN_S
        )
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert (path.parent / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert ":?" in service["environment"]["SANIC_PROXY_API_KEYS"]
        assert unknown(service["environment"]) == set()
    mounted = [mount for service in document["services"].values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounted if mount.startswith(".")]
    assert [file for file in files if file != "./tls" and not (path.parent / file).exists()] == []


def unknown(environment: dict[str, Any]) -> set[str]:
    """Settings that do not exist."""
    names = {f"SANIC_PROXY_{variable.name}" for variable in VARIABLES}
    return {name for name in environment if name.startswith("SANIC_PROXY_")} - names
