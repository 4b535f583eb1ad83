"""The settings of captured content and its replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.capture import Fault, FaultKind
from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError

TOML = """
[clients.a]
key_env = "A_KEY"
capture = true

[clients.b]
key_env = "B_KEY"
capture_sample = 0.5

[models.m]
targets = ["echo/echo"]
capture = true
capture_sample = 0.25
"""


def loaded(directory: Path, **environ: str) -> Settings:
    (directory / "proxy.toml").write_text(TOML)
    keys = {"A_KEY": "key-a-12345", "B_KEY": "key-b-12345", "SANIC_PROXY_CONFIG": "proxy.toml"}
    return load({**keys, **environ}, directory)


def test_tables_say_what_is_captured(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SANIC_PROXY_CAPTURE_FILE=str(tmp_path / "c"))
    assert [client.rules.capture for client in settings.clients] == [1.0, 0.0]
    assert settings.models[0].capture == 0.25


def test_capture_needs_a_file_in_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[clients.a\] capture: needs .*\[models.m\] capture"):
        loaded(tmp_path)
    with pytest.raises(SettingsError, match="there is no directory"):
        loaded(tmp_path, SANIC_PROXY_CAPTURE_FILE=str(tmp_path / "x" / "y"))


def test_replay_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SANIC_PROXY_REPLAY_FILE: there is no file"):
        load({"SANIC_PROXY_REPLAY_FILE": "nowhere"}, tmp_path)
    (tmp_path / "c").write_text("")
    settings = load({"SANIC_PROXY_REPLAY_FILE": str(tmp_path / "c")}, tmp_path)
    assert [provider.protocol for provider in settings.providers] == ["replay"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", None), ("cut", Fault("cut")), ("429", Fault("429")), ("slow:2.5", Fault("slow", 2.5))],
)
def test_faults(text: str, fault: Fault | None) -> None:
    assert FaultKind().parse(text) == fault


@pytest.mark.parametrize("text", ["slow", "slow:", "slow:0", "slow:-1", "cut:1", "404"])
def test_what_is_no_fault(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reader adds the text
        FaultKind().parse(text)
