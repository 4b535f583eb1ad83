"""All dialects, by name and by path."""

from __future__ import annotations

from collections.abc import Mapping

from sanic_proxy.dialects.base import Dialect, dialect_of
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.gemini import GEMINI
from sanic_proxy.dialects.messages import MESSAGES
from sanic_proxy.dialects.responses import RESPONSES

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (CHAT, MESSAGES, RESPONSES, GEMINI)}


def dialect_for(path: str) -> Dialect:
    """The dialect of a path; that of chats where it has no other one."""
    return dialect_of(path, CHAT)
