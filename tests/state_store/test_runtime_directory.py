"""The private directory in memory: made by its first user, removed with the last one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sanic_proxy.state_store.runtime_directory import RuntimeDirectory, new_name

LONG_AGO = (1.0, 1.0)


def test_it_is_made_by_its_first_user_and_private(tmp_path: Path) -> None:
    directory = RuntimeDirectory(new_name(), tmp_path)
    assert not directory.path.exists()
    directory.prepare()
    RuntimeDirectory(directory.path.name, tmp_path).prepare()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.remove()
    directory.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.row(80)
def test_those_of_dead_processes_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    used, dead, new = (RuntimeDirectory(new_name(), tmp_path) for _ in range(3))
    for directory in (used, dead, new):
        directory.prepare()
    dead.release()
    new.release()
    for directory in (used, dead):
        os.utime(directory.path, LONG_AGO)
    foreign = tmp_path / "else"
    foreign.mkdir()
    latest = RuntimeDirectory(new_name(), tmp_path)
    latest.prepare()
    assert {path.name for path in tmp_path.iterdir()} == {
        used.path.name,
        new.path.name,
        latest.path.name,
        "else",
    }


def test_a_small_file_system_is_not_filled(tmp_path: Path) -> None:
    directory = RuntimeDirectory(new_name(), tmp_path)
    assert directory.size_limit(1000) == 1000
    assert directory.size_limit(2**70) < 2**69
