"""The providers that already speak OpenAI's protocol, a row each. Knows no settings and no network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One provider: where it is, which variable holds its key, and what it wants besides.

    `base_url` is such that `/chat/completions` follows it; None for a local server, which is on only
    when its address is set. `docs` is the vendor's page that says so.
    """

    name: str
    base_url: str | None
    key_variable: str | None
    key_required: bool = True
    aliases: tuple[str, ...] = ()
    other_key_variables: tuple[str, ...] = ()
    forward_headers: tuple[str, ...] = ()
    models_path: str | None = "/models"
    models: tuple[str, ...] = ()
    model_prefix: str = ""
    docs: str = ""

    @property
    def base_url_variable(self) -> str:
        """The variable that replaces `base_url`."""
        return f"{self.name.upper().replace('-', '_')}_BASE_URL"


def _local(name: str, docs: str) -> Row:
    """A server on one's own machine: its key, if it was started with one, is optional."""
    return Row(name, None, f"{name.upper()}_API_KEY", key_required=False, docs=docs)


ROWS: tuple[Row, ...] = (
    Row(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        forward_headers=("openai-organization", "openai-project", "openai-beta"),
        docs="platform.openai.com/docs/api-reference",
    ),
    Row("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", docs="console.groq.com/docs/openai"),
    _local("ollama", "docs.ollama.com/openai"),
)
