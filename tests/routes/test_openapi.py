"""The committed OpenAPI document is what sanic-ext makes of the routes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_committed_document_is_up_to_date() -> None:
    command = [sys.executable, "scripts/docs/openapi.py"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    committed = (ROOT / "sanic_proxy/pages/openapi.json").read_bytes()
    assert json.loads(committed) == json.loads(done.stdout), "run scripts/generate"


def test_the_proxy_does_not_import_what_makes_the_document() -> None:
    code = "import sys, sanic_proxy.app; print({'sanic_ext', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
