"""Which requests do more than ask for an answer."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.dialects.base import Dialect
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.gemini import GEMINI
from sanic_proxy.dialects.messages import MESSAGES
from sanic_proxy.dialects.responses import RESPONSES

FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {}),
        (CHAT, {"store": None}),
        (CHAT, {"store": False, "tools": [FUNCTION, {"type": "custom", "custom": {"name": "g"}}]}),
        (CHAT, {"tools": []}),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}),
        (MESSAGES, {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        (RESPONSES, {"store": False, "tools": [{"type": "function", "name": "f"}]}),
        (RESPONSES, {"store": False, "previous_response_id": "resp_1"}),
        (GEMINI, {"tools": [{"functionDeclarations": [{"name": "f"}]}]}),
    ],
)
def test_requests_without_effects(dialect: Dialect, fields: dict[str, Any]) -> None:
    assert not dialect.effects.of(fields)


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"store": True}),
        (CHAT, {"store": "yes"}),
        (CHAT, {"background": True}),
        (CHAT, {"web_search_options": {"search_context_size": "low"}}),
        (CHAT, {"plugins": [{"id": "web"}]}),
        (CHAT, {"tools": [FUNCTION, {"type": "code_interpreter"}]}),
        (CHAT, {"tools": ["f"]}),
        (CHAT, {"tools": [{"type": 1}]}),
        (CHAT, {"tools": {"type": "function"}}),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (MESSAGES, {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}),
        (MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://mcp.example"}]}),
        (MESSAGES, {"container": "container_1"}),
        (RESPONSES, {}),
        (RESPONSES, {"store": None}),
        (RESPONSES, {"store": True}),
        (RESPONSES, {"store": False, "background": True}),
        (RESPONSES, {"store": False, "conversation": "conv_1"}),
        (RESPONSES, {"store": False, "tools": [{"type": "mcp", "server_label": "s"}]}),
        (RESPONSES, {"store": False, "tools": [{"name": "f"}]}),
        (GEMINI, {"tools": [{"codeExecution": {}}]}),
        (GEMINI, {"tools": [{"functionDeclarations": [], "googleSearch": {}}]}),
    ],
)
def test_requests_with_effects(dialect: Dialect, fields: dict[str, Any]) -> None:
    assert dialect.effects.of(fields)
