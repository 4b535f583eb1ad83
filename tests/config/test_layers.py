"""Where values come from, and how problems name their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config import layers
from sanic_proxy.config.loader import load
from sanic_proxy.config.model import SettingsError


def problems(directory: Path, environ: dict[str, str], flags: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, directory, flags=flags)
    return caught.value.problems


def test_a_message_names_source_value_and_what_is_expected(tmp_path: Path) -> None:
    expected = "expected a whole number from 1 to 65535, got 'x'"
    assert problems(tmp_path, {"SANIC_PROXY_PORT": "x"}) == [f"SANIC_PROXY_PORT: {expected}"]
    assert problems(tmp_path, {"SANIC_PROXY_PORT": "x"}, {"PORT": "--port"}) == [f"--port: {expected}"]
    (tmp_path / ".env").write_text("SANIC_PROXY_PORT=x\n")
    assert problems(tmp_path, {}) == [f"SANIC_PROXY_PORT (in .env): {expected}"]
    (tmp_path / ".env").unlink()
    (tmp_path / "a.toml").write_text("[proxy]\nport = 'x'\n")
    assert problems(tmp_path, {"SANIC_PROXY_CONFIG": "a.toml"}) == [f"[proxy] port: {expected}"]


def test_each_problem_is_reported_once(tmp_path: Path) -> None:
    keys = {"GROQ_API_KEY": "gsk-0123456789", "OPENAI_API_KEY": "sk-0123456789"}
    found = problems(tmp_path, {**keys, "SANIC_PROXY_STREAM_COMMIT_DELAY": "x", "SANIC_PROXY_ECHO": "x"})
    assert len(found) == 2


@pytest.mark.parametrize("text", ["=x\n", "A B C\n", "'unclosed=1\n"])
def test_a_dotenv_line_that_cannot_be_parsed_is_a_problem_with_its_number(tmp_path: Path, text: str) -> None:
    (tmp_path / ".env").write_text(f"SANIC_PROXY_PORT=9000\n{text}")
    (problem,) = problems(tmp_path, {})
    assert "line 2" in problem


def test_a_dotenv_file_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    assert "cannot be read" in problems(tmp_path, {})[0]


def test_toml_texts_hold_variables(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[proxy]\nport = "${THE_PORT}"\n'
        '[providers.lab]\nbase_url = "https://${LAB_HOST}/v1"\nheaders = { x = "${X}" }'
    )
    environ = {"SANIC_PROXY_CONFIG": "a.toml", "THE_PORT": "9000", "LAB_HOST": "lab.example", "X": "y"}
    settings = load(environ, tmp_path)
    assert settings.port == 9000
    assert settings.providers[0].base_url == "https://lab.example/v1"
    del environ["X"]
    assert problems(tmp_path, environ) == ["[providers] lab headers x: the variable X is not set"]


def test_a_blank_value_removes_what_is_below(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=2\n")
    assert layers.read({"A": " "}, tmp_path).values == {"B": "2"}


def test_an_unknown_table_or_key_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[provider.x]\n[proxy]\ntimout_idle = 1\n")
    found = " ".join(problems(tmp_path, {"SANIC_PROXY_CONFIG": "a.toml"}))
    assert "did you mean 'providers'?" in found
    assert "did you mean 'timeout_idle'?" in found
