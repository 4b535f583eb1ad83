"""Which machine and which versions: what figures mean nothing without. No names of hosts, no paths."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

_VERSIONS = """
import platform, sys
from importlib.metadata import PackageNotFoundError, version
print("python", platform.python_version())
for name in ("sanic", "sanic-ext", "uvloop", "httptools", "aiohttp"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""


def described(python: Path) -> dict[str, str | int]:
    """The machine, and the versions of what was measured with; `python` is the proxy's."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        **_package_versions(python),
        "nginx": _version("nginx", "-v"),
        "wrk": _version("wrk", "-v"),
        "valgrind": _version("valgrind", "--version"),
    }


def _cpu_model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else os.uname().machine


def _package_versions(python: Path) -> dict[str, str]:
    done = subprocess.run(
        (str(python), "-c", _VERSIONS), capture_output=True, text=True, timeout=30, check=True
    )
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def _version(tool: str, flag: str) -> str:
    """The first number with dots in the tool's output."""
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin")
    if path is None:
        return "absent"
    done = subprocess.run((path, flag), capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return match[0] if match else "unknown"
