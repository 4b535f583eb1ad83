"""The clients, what does not apply to them, and what they are known to get wrong. Data.

Keys of `not_for` and `gaps` are a feature, or `feature/provider` for one of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.clients.environments import Package


@dataclass(frozen=True, slots=True, kw_only=True)
class Client(Package):
    """One client, and the program in `drivers/` that uses it."""

    driver: str
    not_for: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)


def reason(reasons: Mapping[str, str], feature: str, provider: str) -> str | None:
    return reasons.get(f"{feature}/{provider}", reasons.get(feature))


_NO_LIST = {"models": "the client has no list of models"}
_NO_EMBEDDINGS = {"embeddings": "the API has none"}
_NO_TOOLS = "the client calls no tools"
_ALWAYS_REPEATS = "the client's repeats cannot be turned off"

CLIENTS: tuple[Client, ...] = (
    Client("openai-python", "openai", driver="drive_openai.py"),
    Client("openai-python-old", "openai", driver="drive_openai.py"),
    Client("openai-node", "openai", driver="drive_openai.mjs", runtime="node"),
    Client("ai-sdk", "ai", driver="drive_ai_sdk.mjs", runtime="node", not_for=_NO_LIST),
    Client(
        "openai-responses",
        "openai",
        shared_environment="openai-python",
        driver="drive_openai_responses.py",
        not_for={**_NO_LIST, **_NO_EMBEDDINGS},
    ),
    Client(
        "ai-sdk-responses",
        "@ai-sdk/openai",
        runtime="node",
        shared_environment="ai-sdk",
        driver="drive_ai_sdk_responses.mjs",
        not_for={**_NO_LIST, **_NO_EMBEDDINGS},
    ),
    Client(
        "openai-agents",
        "openai-agents",
        driver="drive_openai_agents.py",
        not_for={**_NO_LIST, **_NO_EMBEDDINGS},
    ),
    Client("anthropic-python", "anthropic", driver="drive_anthropic.py", not_for=_NO_EMBEDDINGS),
    Client(
        "google-genai",
        "google-genai",
        driver="drive_google_genai.py",
        not_for=_NO_EMBEDDINGS,
        gaps={"429-retried": "the client does not look at Retry-After"},
    ),
    Client("langchain-openai", "langchain-openai", driver="drive_langchain.py", not_for=_NO_LIST),
    Client("pydantic-ai", "pydantic-ai-slim", driver="drive_pydantic_ai.py", not_for=_NO_LIST),
    Client(
        "llama-index",
        "llama-index-llms-openai-like",
        driver="drive_llama_index.py",
        not_for=_NO_LIST,
        gaps={"interleaved": "the client takes each piece of another call for a new call"},
    ),
    Client("litellm", "litellm", driver="drive_litellm.py"),
    Client(
        "llm",
        "llm",
        driver="drive_llm.py",
        not_for={"429-raised": _ALWAYS_REPEATS, "embeddings": "the client knows OpenAI's own models only"},
    ),
    Client(
        "aider",
        "aider-chat",
        driver="drive_aider.py",
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
