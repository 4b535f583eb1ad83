"""The systemd unit fits the proxy's settings, and scripts/install-service installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.server.supervisor import MARGIN_S
from tests.support.nginx import CONF, ROOT

INSTALLER = (ROOT / "scripts/install-service").read_text("utf-8")
FOLDER = ROOT / "scripts/deploy/systemd"
UNIT = (FOLDER / "lib/systemd/system/sanic-proxy@.service").read_text("utf-8")


def value(name: str) -> str:
    found = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    assert len(found) == 1, name
    return str(found[0])


def test_a_stop_has_the_time_that_the_settings_give(tmp_path: Path) -> None:
    ending = load({}, tmp_path).ending
    assert int(value("TimeoutStopSec")) > ending.lame_duck_s + ending.drain_s + MARGIN_S
    found = re.search(r"^worker_shutdown_timeout (\d+)s;$", CONF, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= ending.lame_duck_s + ending.drain_s


def test_it_is_restarted_reloaded_and_outlives_a_worker() -> None:
    assert value("Restart") == "always"
    assert value("ExecReload") == "/bin/sh -c 'kill -HUP $MAINPID'"
    assert value("OOMPolicy") == "continue"
    assert value("KillMode") == "mixed"
    assert "--port %i" in value("ExecStart")


def test_the_installer_makes_what_the_unit_names() -> None:
    command = value("ExecStart").split()[0]
    prefix, settings, state = (
        re.findall(rf"\b{name}=(\S+)", INSTALLER)[0] for name in ("prefix", "settings", "state")
    )
    assert command == f"{prefix}/bin/sanic-proxy"
    assert value("WorkingDirectory") == settings
    assert f"/var/lib/{value('StateDirectory')}" == state
    assert "useradd --system --user-group" in INSTALLER
    assert INSTALLER.count(value("User")) > 0


def test_the_unit_is_in_the_wheel_where_the_installer_takes_it_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert ROOT / project["tool"]["flit"]["external-data"]["directory"] == FOLDER
    path = next(path for path in FOLDER.rglob("*") if path.is_file()).relative_to(FOLDER)
    assert f"$prefix/{path}" in INSTALLER


@pytest.mark.parametrize("arguments", [["--purge"], ["eighty"]])
def test_wrong_arguments_change_nothing(arguments: list[str]) -> None:
    command = [str(ROOT / "scripts/install-service"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    unit = tmp_path / "sanic-proxy@8001.service"
    text = UNIT.replace("/opt/sanic-proxy/bin/sanic-proxy", sys.executable)
    unit.write_text(text.replace("User=sanic-proxy", "User=root").replace("Group=sanic-proxy", "Group=root"))
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if "sanic-proxy" in line] == []
