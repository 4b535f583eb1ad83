"""The files made from the declarations are those that are committed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema_rs
import orjson
import pytest

from sanic_proxy.cli import SHELLS
from sanic_proxy.config import reference
from sanic_proxy.config.litellm import reference as litellm
from sanic_proxy.config.loader import load
from tests.support.completions import completion

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("scripts/docs/settings.md", reference.settings_page),
        ("scripts/docs/litellm.md", litellm.page),
        ("scripts/deploy/.env.example", reference.env_example),
        ("sanic_proxy/config/proxy.schema.json", reference.toml_schema),
    ],
    ids=["settings page", "LiteLLM page", "environment", "schema"],
)
def test_the_committed_file_is_up_to_date(path: str, made: object) -> None:
    assert callable(made)
    assert (ROOT / path).read_text("utf-8") == made(), "run scripts/generate"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_completion_scripts_are_up_to_date(shell: str) -> None:
    path = ROOT / f"sanic_proxy/completions/sanic-proxy.{shell}"
    assert path.read_text("utf-8") == completion(shell), "run scripts/generate"


def test_the_example_environment_file_works_when_every_setting_is_set(tmp_path: Path) -> None:
    text = (ROOT / "scripts/deploy/.env.example").read_text("utf-8")
    entries = [line[1:] for line in text.splitlines() if line.startswith("#SANIC_PROXY_")]
    assert len(entries) > 30
    (tmp_path / ".env").write_text("\n".join(entries))
    assert load({}, tmp_path) is not None


VALID = """
[proxy]
port = 9000
timeout_idle = "10m"
log_level = "debug"
access_log = false
cors_origins = ["https://app.example.com"]

[providers.mylab]
base_url = "https://lab.example/v1"
headers = { "x-team" = "blue" }
models = ["small"]
commit_delay = "5s"
timeouts = { idle = 30 }

[models.fast]
targets = ["mylab/small", { provider = "mylab", model = "small" }]
"""


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    schema = jsonschema_rs.validator_for(orjson.loads(reference.toml_schema()))
    (tmp_path / "proxy.toml").write_text(VALID)
    assert load({"SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path).port == 9000
    assert schema.is_valid(tomllib.loads(VALID))


@pytest.mark.parametrize(
    "text",
    [
        "[proxy]\nprot = 1",
        "[proxy]\nlog_level = 'loud'",
        "[proxy]\nport = 0",
        "[other]\nx = 1",
        "[models.fast]\n",
        "[models.fast]\ntargets = ['x']",
        "[providers.x]\nbase_url = 1",
        "[providers.x]\nbase_url = 'http://x'\ntypo = 1",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    schema = jsonschema_rs.validator_for(orjson.loads(reference.toml_schema()))
    assert not schema.is_valid(tomllib.loads(text))
