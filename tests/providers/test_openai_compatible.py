"""Pass-through: what goes up, what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.providers.openai_compatible import fixed_headers, headers_back


def test_the_key_and_the_rows_headers_go_up(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[providers.groq]\nheaders = {'X-Team' = 'blue'}\n")
    (groq,) = load({"GROQ_API_KEY": "k", "SANIC_PROXY_CONFIG": "p.toml"}, tmp_path).providers
    assert fixed_headers(groq) == {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": "Bearer k",
        "x-team": "blue",
    }


def test_without_a_key_there_is_no_authorization(tmp_path: Path) -> None:
    (ollama,) = load({"OLLAMA_BASE_URL": "http://127.0.0.1/v1"}, tmp_path).providers
    assert "authorization" not in fixed_headers(ollama)


@pytest.mark.parametrize(
    ("name", "value", "back"),
    [
        ("X-RateLimit-Remaining-Tokens", "7", ("x-ratelimit-remaining-tokens", "7")),
        ("openai-processing-ms", "12", ("openai-processing-ms", "12")),
        ("retry-after", "999", ("retry-after", "60")),
        ("x-request-id", "up-1", ("x-upstream-request-id", "up-1")),
        ("openai-organization", "ours", None),
        ("set-cookie", "a=b", None),
        ("connection", "close", None),
        ("server", "nginx", None),
        ("x-ratelimit-x", "a\x00b", None),
    ],
)
def test_only_what_helps_the_client_comes_back(name: str, value: str, back: tuple[str, str] | None) -> None:
    headers = {name: value} if name.startswith("X-") or name.islower() else {}
    assert headers_back(headers) == ([back] if back else [])
