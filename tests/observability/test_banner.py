"""What is said on start."""

from __future__ import annotations

from pathlib import Path

from sanic_proxy.config.loader import load
from sanic_proxy.observability import banner

KEY = "gsk-canary-0123456789"


def test_the_start_lines_name_variables_and_no_key(tmp_path: Path) -> None:
    settings = load({"GROQ_API_KEY": KEY, "SANIC_PROXY_API_KEYS": KEY}, tmp_path)
    said = "\n".join(banner.start_lines(settings))
    assert "providers on: groq" in said
    assert f"{len(settings.providers_off)} more are off" in said
    assert "router on" in said
    assert "the key" in said
    assert KEY not in said


def test_the_start_lines_say_that_the_proxy_is_open(tmp_path: Path) -> None:
    said = "\n".join(banner.start_lines(load({"STRAICO_API_KEY": KEY}, tmp_path)))
    assert "open: no client key is required" in said
    assert "router off" in said


def test_the_example_of_the_router_is_a_provider_that_is_on(tmp_path: Path) -> None:
    for environ, name in (({}, "echo"), ({"XAI_API_KEY": KEY}, "xai")):
        line = banner.router_line(load(environ, tmp_path))
        assert line == f"router on: the model `{name}/MODEL` goes to {name} as `MODEL`"
