"""The clients, what does not apply to them, and what they are known to get wrong. Data.

Keys of `not_for` and `gaps` are a feature, or `feature/provider` for one of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Client:
    """One client, pinned by `scripts/requirements/clients/<name>.txt` or `.json`."""

    name: str
    package: str
    driver: str
    runtime: Literal["python", "node"] = "python"
    not_for: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)


def reason(reasons: Mapping[str, str], feature: str, provider: str) -> str | None:
    return reasons.get(f"{feature}/{provider}", reasons.get(feature))


_NO_LIST = {"models": "the client has no list of models"}
_NO_TOOLS = "the client calls no tools"
_ALWAYS_REPEATS = "the client's repeats cannot be turned off"

CLIENTS: tuple[Client, ...] = (
    Client("openai-python", "openai", "drive_openai.py"),
    Client("openai-python-old", "openai", "drive_openai.py"),
    Client("openai-node", "openai", "drive_openai.mjs", runtime="node"),
    Client("ai-sdk", "ai", "drive_ai_sdk.mjs", runtime="node", not_for=_NO_LIST),
    Client("langchain-openai", "langchain-openai", "drive_langchain.py", not_for=_NO_LIST),
    Client("pydantic-ai", "pydantic-ai-slim", "drive_pydantic_ai.py", not_for=_NO_LIST),
    Client(
        "llama-index",
        "llama-index-llms-openai-like",
        "drive_llama_index.py",
        not_for=_NO_LIST,
        gaps={"interleaved": "the client takes each piece of another call for a new call"},
    ),
    Client("litellm", "litellm", "drive_litellm.py"),
    Client(
        "llm",
        "llm",
        "drive_llm.py",
        not_for={"429-raised": _ALWAYS_REPEATS, "embeddings": "the client knows OpenAI's own models only"},
    ),
    Client(
        "aider",
        "aider-chat",
        "drive_aider.py",
        not_for={
            **_NO_LIST,
            "tools": _NO_TOOLS,
            "tools-stream": _NO_TOOLS,
            "parallel": _NO_TOOLS,
            "interleaved": _NO_TOOLS,
            "structured": "the client sends no schema",
            "429-raised": _ALWAYS_REPEATS,
            "embeddings": "the client has none",
        },
    ),
)
