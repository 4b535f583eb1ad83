"""`sanic-proxy backup`: a copy of the state store, made while the proxy runs."""

from __future__ import annotations

import argparse
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sanic_proxy.commands.store import failed
from sanic_proxy.config.model import Settings
from sanic_proxy.state_store.sqlite import FILE_NAME, state_directory

Subparsers = Any  # argparse's own type of it is private


def add_command(commands: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "copy the state store (keys, budgets, ledger) to a file, also while the proxy runs"
    parser = commands.add_parser(
        "backup",
        parents=[common],
        help=text,
        description=f"{text[0].upper()}{text[1:]}. To restore: stop the proxy, put the file in its place.",
        epilog="example: sanic-proxy backup /var/backups/sanic-proxy.sqlite",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="where to; it must not exist yet")
    parser.set_defaults(run=make_backup)


def make_backup(settings: Settings, options: argparse.Namespace) -> int:
    """Copy the file of the store by SQLite's own means: a consistent state, without stopping writers."""
    target: Path = options.file
    if settings.store is not None:
        return failed("the state is in PostgreSQL: use pg_dump")
    source = state_directory(settings.state_dir) / FILE_NAME
    if not source.exists():
        return failed(f"there is no state store at {source}")
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as exc:
        return failed(f"{target} cannot be made: {exc.strerror}")
    try:
        with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as two:
            one.backup(two)
    except sqlite3.Error as exc:
        target.unlink(missing_ok=True)
        return failed(f"the state store cannot be copied: {exc}")
    return 0
