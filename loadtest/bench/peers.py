"""Other gateways: installed once, each into a folder of its own in the cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loadtest.bench.processes import StartError

INSTALL_TIMEOUT_S = 900
PIP_PACKAGES = {"vllm-router": "vllm-router", "litellm": "litellm[proxy]"}
# With later versions of what it serves with, Portkey fails every stream.
PORTKEY_PROJECT = {
    "private": True,
    "overrides": {"hono": "4.9.7", "@hono/node-server": "1.13.5", "@hono/node-ws": "1.2.0"},
}
PEERS = (*PIP_PACKAGES, "portkey")


def peer_folder(name: str, cache: Path) -> Path:
    """Where a peer is installed."""
    return cache / "peers" / name


def install_peer(name: str, cache: Path) -> None:
    """Install a peer unless it is there. Raises StartError that names the log."""
    folder = peer_folder(name, cache)
    if (folder / "bin" / name).exists() or (folder / "node_modules/@portkey-ai/gateway").exists():
        return
    print(f"installing {name} into {folder} ... ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    _install(name, folder)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


def _install(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    if name == "portkey":
        if shutil.which("npm") is None:
            raise StartError("needs npm and node (Debian: apt-get install nodejs npm)")
        (folder / "package.json").write_text(json.dumps(PORTKEY_PROJECT))
        _run(
            ("npm", "--prefix", str(folder), "install", "--no-audit", "--no-fund", "@portkey-ai/gateway"), log
        )
        return
    _run((sys.executable, "-m", "venv", str(folder)), log)
    _run((str(folder / "bin/pip"), "install", "--quiet", PIP_PACKAGES[name]), log)


def _run(argv: Sequence[str], log: Path) -> None:
    """Run an installer, in the caller's environment: it may name his index."""
    try:
        with log.open("ab") as output:
            subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_TIMEOUT_S,
                check=True,
            )
    except (subprocess.SubprocessError, OSError) as exc:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise StartError(f"could not be installed:\n{tail}") from exc
