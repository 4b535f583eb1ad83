"""The examples in `tests/examples/clients/`, each run with the packages of its client against `echo`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.clients import environments
from tests.clients.clients import CLIENTS
from tests.clients.driving import environment
from tests.support.proxy import running_proxy

FOLDER = environments.ROOT / "tests/examples/clients"
# Which client's environment has what an example imports.
EXAMPLES: Mapping[str, str] = {
    "openai_python.py": "openai-python",
    "openai_node.mjs": "openai-node",
    "langchain_python.py": "langchain-openai",
    "vercel_ai_sdk.mjs": "ai-sdk",
    "openai_agents.py": "openai-agents",
}
MODEL, EXPECTED = "echo/echo", "Hello there"
TIMEOUT_S = 180.0


def run() -> int:
    """Run all of them and print a line for each; the exit code: 1 if one failed."""
    failed = 0
    environments.CACHE.mkdir(exist_ok=True)
    with running_proxy({}) as proxy:
        for example, name in EXAMPLES.items():
            why = fault(example, name, f"{proxy.url}/v1")
            failed += bool(why)
            print(f"{example}: {'FAIL ' + why if why else 'pass'}", flush=True)
    return 1 if failed else 0


def fault(example: str, name: str, base_url: str) -> str:
    """Why an example does not print the answer; empty if it does."""
    client = next(client for client in CLIENTS if client.name == name)
    try:
        folder = environments.installed(client)
    except environments.InstallError as exc:
        return str(exc)
    with tempfile.TemporaryDirectory() as home:
        variables = environment({}, Path(home)) | {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "unused"}
        try:
            done = subprocess.run(
                [*command(client, folder, FOLDER / example), MODEL],
                cwd=home,
                env=variables,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no end in {TIMEOUT_S:.0f} s"
    if done.stdout.strip() == EXPECTED and done.returncode == 0:
        return ""
    return f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}"


def command(client: environments.Package, folder: Path, example: Path) -> list[str]:
    """How to start an example. Node looks for packages beside the file that imports them."""
    if client.runtime == "python":
        return [str(folder / "bin/python"), str(example)]
    return ["node", str(shutil.copy(example, folder))]
