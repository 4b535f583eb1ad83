"""Which session a request belongs to, by what clients send anyway. Pure.

Agents and chat programs send the same long beginning with every turn, and providers keep it in a cache, which
is one target's. So the requests of one session should meet the same target. The name of a session is taken
from the first of these that is there:

| where | sent by |
|---|---|
| the header `x-claude-code-session-id` | Claude Code |
| the headers `session-id`, `session_id` | Codex |
| `prompt_cache_key` | Codex, and clients that care for OpenAI's cache |
| the header `x-session-affinity` | whoever sets it for this proxy |
| `metadata.session_id`, `metadata.user_id`, `user` | others; Claude Code's `user_id` holds its session |
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.translation.signatures import PREFIX

OWN_HEADER = "x-session-affinity"
_CLIENTS_HEADERS = ("x-claude-code-session-id", "session-id", "session_id")
CACHE_KEY = "prompt_cache_key"
# A longer name is hashed.
MAX_NAME_CHARS = 256
DIGEST_BYTES = 8
# Where a conversation is in the APIs, and what precedes it.
TURNS = ("messages", "input", "contents")
PREAMBLE = ("system", "instructions", "systemInstruction", "system_instruction", "tools")
_KEY = b'"encrypted_content"'
_INCLUDED = "reasoning.encrypted_content"


# The name of a session in the headers of a request ("" if there is none), and whether no name in its body
# comes before it.
HeaderName: TypeAlias = tuple[str, bool]


def header_name(headers: Mapping[str, str]) -> HeaderName:
    """The client's name for the session as far as headers have it; they are keyed by lower-case name."""
    for header in _CLIENTS_HEADERS:
        if name := headers.get(header):
            return name, True
    return headers.get(OWN_HEADER, ""), False


def session_name(header: HeaderName, fields: JsonMapping) -> str:
    """The client's name for the session of a request; "" if it sends none."""
    name, is_first = header
    if is_first:
        return name
    name = _text(fields.get(CACHE_KEY)) or name
    if not name and isinstance(metadata := fields.get("metadata"), dict):
        name = _text(metadata.get("session_id")) or _text(metadata.get("user_id"))
    return name or _text(fields.get("user"))


def shortened(name: str) -> str:
    """The name of a session as it is kept in memory: a hash of it if it is long."""
    return name if len(name) <= MAX_NAME_CHARS else _hashed(name)


def _hashed(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def conversation_name(fields: JsonMapping) -> str:
    """A name made of the beginning of a conversation, which all of its turns share; "" if there is none.

    The beginning is the system prompt, the tools, and the turns up to the first one of the user.
    """
    turns: Any = next((fields[name] for name in TURNS if fields.get(name)), None)
    if isinstance(turns, list):
        until = next((place for place, turn in enumerate(turns) if _is_users(turn)), len(turns) - 1)
        turns = turns[: until + 1]
    if not turns:
        return ""
    preamble = [fields[name] for name in PREAMBLE if name in fields]
    return hashlib.blake2b(codec.dumps([preamble, turns]), digest_size=16).hexdigest()


def encrypted_name(body: bytes, fields: JsonMapping) -> str:
    """A name made of the first encrypted reasoning in a request of the Responses API; "" if there is none.

    It can be decrypted only in the account that made it. What the proxy has marked with its origin (see
    `translation.signatures`) does not count: other providers are spared it anyway. A search in `body` spares
    most requests the rest.
    """
    items = fields.get("input")
    if not isinstance(items, list) or _KEY not in body:
        return ""
    for item in items:
        content = item.get("encrypted_content") if isinstance(item, dict) else None
        if isinstance(content, str) and content and not content.startswith(PREFIX):
            return content
    return ""


def wants_encrypted(fields: JsonMapping) -> bool:
    """Whether the answer to a request of the Responses API will have encrypted reasoning."""
    include = fields.get("include")
    return isinstance(include, list) and _INCLUDED in include


def digest(client_id: str, model: str, name: str) -> bytes:
    """A session as the proxy knows it: the name as one client uses it for one model.

    No client can meet another one's session by sending its name, and logs and the shared memory have no name.
    Not salted: all workers and all instances come to the same result.
    """
    text = f"{client_id}\0{model}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_users(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "user"
