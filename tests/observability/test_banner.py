"""The lines logged on start."""

from __future__ import annotations

from pathlib import Path

from sanic_proxy.config.loader import load
from sanic_proxy.observability import banner

KEY = "gsk-canary-0123456789"


def test_the_start_lines_name_variables_and_no_key(tmp_path: Path) -> None:
    settings = load({"GROQ_API_KEY": KEY, "SANIC_PROXY_API_KEYS": KEY}, tmp_path)
    text = "\n".join(banner.start_lines(settings))
    assert "providers on: groq" in text
    assert f"{len(settings.providers_off)} more are off" in text
    assert "router on" in text
    assert "the key" in text
    assert KEY not in text


def test_the_start_lines_warn_that_the_proxy_is_open(tmp_path: Path) -> None:
    text = "\n".join(banner.start_lines(load({"STRAICO_API_KEY": KEY}, tmp_path)))
    assert "open: no client key is required" in text
    assert "router off" in text


def test_the_example_of_the_router_is_a_provider_that_is_on(tmp_path: Path) -> None:
    for environ, name in (({}, "echo"), ({"XAI_API_KEY": KEY}, "xai")):
        line = banner.router_line(load(environ, tmp_path))
        assert line == f"router on: the model `{name}/MODEL` goes to {name} as `MODEL`"


def test_the_first_start_shows_a_request_and_how_to_add_a_key(tmp_path: Path) -> None:
    lines = banner.first_steps(load({"SANIC_PROXY_PORT": "9000"}, tmp_path))
    assert "http://127.0.0.1:9000/v1/chat/completions" in lines[1]
    assert "sanic-proxy init" in lines[2]
    assert banner.first_steps(load({"GROQ_API_KEY": KEY}, tmp_path)) == []
