"""The report of `sanic-proxy check --explain`: our own file for LiteLLM's, a comment for each of its keys."""

from __future__ import annotations

from sanic_proxy.config.litellm import toml
from sanic_proxy.config.litellm.convert import Converted
from sanic_proxy.config.litellm.notes import summary


def explanation(converted: Converted, file_name: str) -> str:
    """A TOML file that does what LiteLLM's file does here. It holds none of the keys written there."""
    lines = [f"# {file_name}: {summary(converted.notes)}", *(f"# {note}" for note in converted.notes)]
    if converted.made_up:
        lines += ["#", f"# Set these variables to the values that are written in {file_name}:"]
        lines += [f"# {name} (line {line})" for name, line in converted.made_up.items()]
    return "\n".join([*lines, "", toml.dumps(converted.tables)])
