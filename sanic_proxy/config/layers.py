"""Where settings come from: flags, environment, `.env`, TOML file. Each value keeps its source for messages.

The layers are merged into one mapping of variable names to text, the later ones winning: TOML, `.env`,
environment. Flags are environment variables by the time they get here, as spawned workers inherit those.
"""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv.parser import parse_stream

from sanic_proxy.config.model import VARIABLES
from sanic_proxy.config.variables import PREFIX, suggestion, toml_text

if TYPE_CHECKING:
    from sanic_proxy.config.litellm.convert import Converted

TABLES = ("proxy", "providers", "models", "clients", "teams", "limits")
LITELLM_SUFFIXES = frozenset({".yaml", ".yml"})
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(slots=True)
class Layers:
    """The merged values. `sources` has the origin of each; `toml` has the tables besides `[proxy]`.

    `litellm` is LiteLLM's file, converted, where `config` is one.
    """

    values: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    toml: dict[str, object] = field(default_factory=dict)
    config: str = ""
    litellm: Converted | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def put(self, values: Mapping[str, str], source: str) -> None:
        """Add a layer above those that are there. A blank value removes what is below it.

        That is how a shell switches off an entry of a `.env` file.
        """
        for name, text in values.items():
            if stripped := text.strip():
                self.values[name], self.sources[name] = stripped, source
            else:
                self.values.pop(name, None)

    def where(self, name: str, flags: Mapping[str, str]) -> str:
        """How a message names the variable `name`: by its flag, its TOML key, or itself with its source."""
        if name in flags:
            return flags[name]
        source = self.sources.get(name, "")
        return (
            f"{source} {name.removeprefix(PREFIX).lower()}" if source.startswith("[") else f"{name}{source}"
        )


def read(environ: Mapping[str, str], directory: Path) -> Layers:
    """The layers of a process's environment and of the files in `directory`. Problems are collected."""
    layers = Layers()
    dotenv = _dotenv(layers, directory / ".env")
    layers.config = environ.get(PREFIX + "CONFIG", dotenv.get(PREFIX + "CONFIG", "")).strip()
    if layers.config:
        path, variables = directory / layers.config, {**dotenv, **environ}
        if path.suffix.lower() in LITELLM_SUFFIXES:
            parsed = _litellm(layers, path, variables)
            variables = {**layers.values, **variables}
        else:
            parsed = _toml(layers, path)
        layers.toml = _expanded(layers, parsed, variables)
        layers.put(_proxy_table(layers), "[proxy]")
    layers.put(dotenv, " (in .env)")
    layers.put(environ, "")
    _warn_of_unknown(layers)
    return layers


def _dotenv(layers: Layers, path: Path) -> dict[str, str]:
    """The entries of a `.env` file, none where there is no file. Nothing in it is expanded."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        layers.problems.append(f"{path}: cannot be read: {_reason(exc)}")
        return {}
    entries: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            layers.problems.append(f"{path}: line {binding.original.line} is not NAME=value")
        elif binding.key is not None and binding.value is not None:
            entries[binding.key] = binding.value
    return entries


def _toml(layers: Layers, path: Path) -> dict[str, object]:
    try:
        parsed = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as exc:
        layers.problems.append(f"{PREFIX}CONFIG: {path.name} cannot be read: {_reason(exc)}")
        return {}
    for name in parsed.keys() - set(TABLES):
        layers.problems.append(
            f"{path.name}: [{name}] is not a table of this proxy{suggestion(name, TABLES)}"
        )
    return parsed


def _litellm(layers: Layers, path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """LiteLLM's file as the tables of ours, as far as they can be used with the variables that are set."""
    from sanic_proxy.config.litellm import convert, document, notes  # noqa: PLC0415 - only with such a file

    try:
        converted = convert.convert(document.parse(path.read_text("utf-8-sig")), environ)
    except (OSError, ValueError) as exc:
        layers.problems.append(f"{PREFIX}CONFIG: {path.name} cannot be read: {_reason(exc)}")
        return {}
    layers.put(converted.variables, f" (in {path.name})")
    layers.litellm = converted
    found = convert.usable(converted, {**converted.variables, **environ})
    layers.problems += [f"{path.name}: {problem}" for problem in found.problems]
    layers.warnings += [
        f"{path.name}: {notes.summary(converted.notes)}; `sanic-proxy check --explain` shows them all",
        *(f"{path.name}, {note}" for note in converted.notes if note.outcome != "exact"),
        *(f"{path.name}: {sentence}" for sentence in found.missing),
    ]
    return found.tables


def _reason(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def _expanded(layers: Layers, value: object, environ: Mapping[str, str], where: str = "") -> Any:
    """A TOML value in which `${NAME}` stands for the variable's value. An unset variable is a problem."""
    if isinstance(value, dict):
        return {
            key: _expanded(layers, item, environ, f"{where} {key}" if where else f"[{key}]")
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_expanded(layers, item, environ, where) for item in value]
    if not isinstance(value, str):
        return value
    unset = [name for name in _REFERENCE.findall(value) if not environ.get(name, "").strip()]
    layers.problems += [f"{where}: the variable {name} is not set" for name in unset]
    return _REFERENCE.sub(lambda match: environ.get(match[1], ""), value)


def _proxy_table(layers: Layers) -> dict[str, str]:
    known = {variable.key: variable for variable in VARIABLES}
    table = layers.toml.pop("proxy", {})
    if not isinstance(table, dict):
        layers.problems.append("[proxy] must be a table")
        return {}
    for name in table.keys() - known.keys():
        layers.problems.append(f"[proxy] {name}: is not a setting of this proxy{suggestion(name, known)}")
    return dict(_texts(layers, {name: value for name, value in table.items() if name in known}))


def _texts(layers: Layers, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        try:
            yield PREFIX + name.upper(), toml_text(value)
        except ValueError:
            layers.problems.append(
                f"[proxy] {name}: must be text, a number, true or false, or a list of those"
            )


def _warn_of_unknown(layers: Layers) -> None:
    known = {PREFIX + variable.name for variable in VARIABLES}
    for name in sorted(layers.values):
        if name.startswith(PREFIX) and name not in known:
            layers.warnings.append(f"{name} is not a setting of this proxy{suggestion(name, sorted(known))}")
