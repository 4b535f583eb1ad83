"""The agents, the providers they are driven through, and their known gaps. Data.

Keys of `errors`, `not_for` and `gaps` are a scenario, or `scenario/provider` for one of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.clients.agents.programs import ClaudeCode, Codex, GeminiCli, OpenCode, Program, QwenCode
from tests.clients.agents.shapes.base import Shape
from tests.clients.agents.shapes.chat import ChatShape
from tests.clients.agents.shapes.gemini import MODEL as GEMINI_MODEL
from tests.clients.agents.shapes.gemini import GeminiShape
from tests.clients.agents.shapes.messages import MessagesShape
from tests.clients.agents.shapes.responses import ResponsesShape
from tests.clients.agents.shapes.straico import StraicoShape
from tests.clients.environments import Package


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider of the proxy, and the API that the scripted upstream speaks in its place."""

    name: str
    shape: Shape
    model: str = "agent"


CHAT = Provider("groq", ChatShape())
MESSAGES = Provider("anthropic", MessagesShape(), "claude-opus-5-5")
RESPONSES = Provider("openai", ResponsesShape())
GEMINI = Provider("google", GeminiShape(), GEMINI_MODEL)
STRAICO = Provider("straico", StraicoShape(), "openai/agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(Package):
    """One agent, pinned by `scripts/requirements/clients/<name>.json`.

    The provider `native` speaks the agent's own API; for the others the proxy translates. In the scenarios of
    `errors` the agent must fail and show that text; in those of `ends_well` its exit code is 0 all the same.
    """

    program: Program
    native: Provider
    translated: Sequence[Provider]
    model: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    ends_well: frozenset[str] = frozenset()
    not_for: Mapping[str, str] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)


_REPEATS = "the agent repeats its requests for minutes, regardless of the error"
_NO_END = {"quota": _REPEATS, "late-quota": _REPEATS, "cut-always": _REPEATS}
_STRAICO_QUOTA = "daily API limit"
_NO_CONTEXT = {"context": "the agent counts tokens by itself"}
_NO_NAMESPACES = {"namespace": "the agent has no namespaces of tools"}

AGENTS: tuple[Agent, ...] = (
    Agent(
        "claude-code",
        "@anthropic-ai/claude-code",
        "node",
        program=ClaudeCode(),
        native=MESSAGES,
        translated=(CHAT, STRAICO),
        errors={
            "quota": "quota",
            "quota/straico": _STRAICO_QUOTA,
            "late-quota": "quota",
            "late-quota/straico": _STRAICO_QUOTA,
        },
        not_for={**_NO_NAMESPACES, "cut-always": _REPEATS},
    ),
    Agent(
        "codex",
        "@openai/codex",
        "node",
        program=Codex(),
        native=RESPONSES,
        translated=(CHAT, MESSAGES, STRAICO),
        model="gpt-5.5",
        errors={
            "quota": "Quota exceeded",
            "late-quota": "Quota exceeded",
            "cut-always": "stream disconnected before completion",
            "cut-always/straico": "The connection was lost before the provider's answer was complete",
        },
        not_for=_NO_CONTEXT,
    ),
    Agent(
        "opencode",
        "opencode-ai",
        "node",
        program=OpenCode(),
        native=CHAT,
        translated=(STRAICO,),
        not_for={**_NO_NAMESPACES, **_NO_CONTEXT, **_NO_END},
    ),
    Agent(
        "qwen-code",
        "@qwen-code/qwen-code",
        "node",
        program=QwenCode(),
        native=CHAT,
        translated=(STRAICO,),
        not_for={**_NO_NAMESPACES, **_NO_CONTEXT, **_NO_END},
    ),
    Agent(
        "gemini-cli",
        "@google/gemini-cli",
        "node",
        program=GeminiCli(),
        native=GEMINI,
        translated=(CHAT, MESSAGES, STRAICO),
        errors={
            "quota": "quota",
            "quota/straico": _STRAICO_QUOTA,
            # A stream of the API has no place for an error: it ends without a finish reason.
            "late-quota": "Model stream ended without a finish reason",
            "cut-always": "Model stream ended without a finish reason",
        },
        ends_well=frozenset({"late-quota", "cut-always"}),
        not_for={**_NO_NAMESPACES, **_NO_CONTEXT, "cut-always/straico": _REPEATS},
    ),
)
