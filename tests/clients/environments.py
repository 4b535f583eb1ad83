"""An environment for each client, under `.clients/`: installed once, pinned, apart from all others."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "scripts" / "requirements" / "clients"
DRIVERS = Path(__file__).parent / "drivers"
CACHE = ROOT / ".clients"
INSTALL_TIMEOUT_S = 900


class InstallError(Exception):
    """A client could not be installed; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Package:
    """A client's package, pinned by `scripts/requirements/clients/<environment>.txt` or `.json`.

    The environment has the client's name, unless it belongs to another client.
    """

    name: str
    package: str
    runtime: Literal["python", "node"] = "python"
    shared_environment: str = ""

    @property
    def environment(self) -> str:
        return self.shared_environment or self.name

    @property
    def pins(self) -> Path:
        return REQUIREMENTS / f"{self.environment}.{'json' if self.runtime == 'node' else 'txt'}"

    @property
    def version(self) -> str:
        """The pinned version of the package that the client is known by."""
        text = self.pins.read_text("utf-8")
        if self.runtime == "node":
            found: str = json.loads(text)["dependencies"][self.package]
            return found
        match = re.search(rf"(?m)^{re.escape(self.package)}==(\S+)", text)
        return match[1] if match else "?"


def installed(package: Package) -> Path:
    """Install `package` if need be; its folder. Raises InstallError."""
    folder = CACHE / package.environment
    stamp = folder / ".installed"
    wanted = hashlib.sha256(package.pins.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        started = time.monotonic()
        print(f"installing {package.environment} {package.version} ... ", end="", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _install(package, folder)
        stamp.write_text(wanted)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return folder


def driver_command(package: Package, driver: str) -> list[str]:
    """Install `package` if need be; how to run its driver. Raises InstallError."""
    folder = installed(package)
    if package.runtime == "python":
        return [str(folder / "bin" / "python"), str(DRIVERS / driver)]
    # Node looks for packages beside the file that imports them.
    for source in DRIVERS.glob("*.mjs"):
        shutil.copy(source, folder)
    return ["node", str(folder / driver)]


def _install(package: Package, folder: Path) -> None:
    if package.runtime == "node":
        shutil.copy(package.pins, folder / "package.json")
        quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
        # No lock file: it would record which registry each package came from.
        _run(["npm", "install", "--no-package-lock", "--ignore-scripts", *quiet], folder)
        return
    _run([sys.executable, "-m", "venv", "."], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    _run([*pip, "--require-hashes", "-r", str(package.pins)], folder)


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
