"""Running the `sanic-proxy` command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.proxy import clean_environment


def run_command(
    directory: Path, settings: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """What `sanic-proxy` with `arguments` prints, in `directory` with nothing but `settings`."""
    return subprocess.run(
        [sys.executable, "-m", "sanic_proxy", *arguments],
        cwd=directory,
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
