"""An environment for each client, under `.clients/`: installed once, pinned, apart from all others."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.clients.clients import Client

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "scripts" / "requirements" / "clients"
DRIVERS = Path(__file__).parent / "drivers"
CACHE = ROOT / ".clients"
INSTALL_TIMEOUT_S = 900


class InstallError(Exception):
    """A client could not be installed; the message has the reason."""


def pins(client: Client) -> Path:
    return REQUIREMENTS / f"{client.name}.{'json' if client.runtime == 'node' else 'txt'}"


def version(client: Client) -> str:
    """The pinned version of the package that the client is known by."""
    text = pins(client).read_text("utf-8")
    if client.runtime == "node":
        found: str = json.loads(text)["dependencies"][client.package]
        return found
    match = re.search(rf"(?m)^{re.escape(client.package)}==(\S+)", text)
    return match[1] if match else "?"


def command(client: Client) -> list[str]:
    """Install `client` if need be; how to run its driver. Raises InstallError."""
    folder = CACHE / client.name
    stamp = folder / ".installed"
    wanted = hashlib.sha256(pins(client).read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        started = time.monotonic()
        print(f"installing {client.name} {version(client)} ... ", end="", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _install(client, folder)
        stamp.write_text(wanted)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if client.runtime == "python":
        return [str(folder / "bin" / "python"), str(DRIVERS / client.driver)]
    # Node looks for packages beside the file that imports them.
    for source in DRIVERS.glob("*.mjs"):
        shutil.copy(source, folder)
    return ["node", str(folder / client.driver)]


def _install(client: Client, folder: Path) -> None:
    if client.runtime == "node":
        shutil.copy(pins(client), folder / "package.json")
        quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
        # No lock file: it would record which registry each package came from.
        _run(["npm", "install", "--no-package-lock", "--ignore-scripts", *quiet], folder)
        return
    _run([sys.executable, "-m", "venv", "."], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    _run([*pip, "--require-hashes", "-r", str(pins(client))], folder)


def _run(arguments: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InstallError(f"not installed: {exc}") from exc
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no output"]
        raise InstallError(f"not installed: {Path(arguments[0]).name}: {' / '.join(lines[-3:])[:400]}")
