"""The files of `sanic-proxy init`: a commented `proxy.toml`, `.env`, and the JSON Schema for editors.

The texts are made from the declarations, by pure functions; only `write` touches the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sanic_proxy.config.catalog import ROWS, Row
from sanic_proxy.config.model import VARIABLES
from sanic_proxy.config.reference import toml_schema
from sanic_proxy.config.variables import PREFIX, Variable

TOML, ENV, SCHEMA = "proxy.toml", ".env", "proxy.schema.json"
# The settings that a first configuration shows.
_SHOWN = ("HOST", "PORT", "WORKERS", "TIMEOUT_FIRST_CONTENT", "ATTEMPTS", "MAX_BODY_BYTES", "LOG_FORMAT")


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written: its text, and its mode, as only the owner may read keys."""

    name: str
    text: str
    mode: int = 0o644


def files(environ: Mapping[str, str]) -> tuple[File, ...]:
    """The files for the providers whose variables are set in `environ`."""
    found = {row.name: values for row in ROWS if (values := _values(row, environ))}
    return (
        File(TOML, _toml(tuple(found))),
        File(ENV, _env(found, environ.get(f"{PREFIX}API_KEYS", "")), 0o600),
        File(SCHEMA, toml_schema()),
    )


def providers_found(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the providers whose variables are set."""
    return tuple(row.name for row in ROWS if _values(row, environ))


def write(directory: Path, file: File) -> bool:
    """Write a file that does not exist yet, and return whether that is so. Raises OSError.

    It is created with its mode, so that nobody else can open it in between. A link counts as a file.
    """
    try:
        descriptor = os.open(directory / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(file.text)
    return True


def _values(row: Row, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a provider that are set; empty unless they turn it on."""
    names = (row.key_variable, *row.other_key_variables)
    keys = {name: environ[name] for name in names if name and environ.get(name, "").strip()}
    others = (row.base_url_variable, row.endpoint_variable, row.version_variable)
    addresses = {name: environ[name] for name in others if name and environ.get(name, "").strip()}
    needed = keys if row.key_required else row.base_url_variable in addresses
    if row.is_embedded or not needed or (row.endpoint_variable and not addresses):
        return {}
    return keys | addresses


def _toml(found: tuple[str, ...]) -> str:
    first, second = (*found, "PROVIDER", "OTHER")[:2]
    settings = "\n".join(_setting(variable) for variable in VARIABLES if variable.name in _SHOWN)
    return f"""\
#:schema ./{SCHEMA}
# Settings of sanic-proxy. Variables of the environment and of {ENV} win over this file.
# `sanic-proxy check` reports every problem; remove a # to change the value behind it.

[proxy]
{settings}

# A name of your own for several targets: the next one is tried when a target fails.
#[models.fast]
#targets = ["{first}/MODEL", "{second}/MODEL"]

# Another provider with an API like OpenAI's:
#[providers.mylab]
#base_url = "https://lab.example/v1"
#api_key_env = "MYLAB_KEY"
"""


def _setting(variable: Variable) -> str:
    default = variable.default
    value = default if default.isdecimal() else f'"{default}"'
    return f"#{variable.key} = {value}".ljust(34) + f"# {variable.meaning}"


def _env(found: Mapping[str, Mapping[str, str]], client_keys: str) -> str:
    return "\n".join(_env_lines(found, client_keys)) + "\n"


def _env_lines(found: Mapping[str, Mapping[str, str]], client_keys: str) -> Iterator[str]:
    yield "# Read by sanic-proxy in its working directory. It holds keys: do not commit or share it."
    yield f"{PREFIX}CONFIG={TOML}"
    yield ""
    yield "# Keys that clients must present, separated by commas; empty: programs on this machine may call."
    yield f"{PREFIX}API_KEYS={_quoted(client_keys)}" if client_keys else f"#{PREFIX}API_KEYS="
    yield ""
    yield "# The providers that are on"
    for values in found.values():
        yield from (f"{name}={_quoted(value)}" for name, value in values.items())
    if not found:
        yield "# (none: no provider's variable was set)"
    yield ""
    yield "# Set one of these to turn its provider on"
    for row in ROWS:
        if row.name not in found and not row.is_embedded:
            value = "" if row.key_required else row.example_url
            yield f"#{row.key_variable if row.key_required else row.base_url_variable}={value}"


def _quoted(value: str) -> str:
    """A value as python-dotenv, systemd and a shell read it."""
    if value.isascii() and all(letter.isalnum() or letter in "-_./:,+=@" for letter in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
