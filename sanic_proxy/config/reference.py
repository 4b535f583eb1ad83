"""The settings reference, example environment file and JSON Schema, made from the declarations."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sanic_proxy.config.budgets import LIMIT_KEYS
from sanic_proxy.config.catalog import ROWS, Row
from sanic_proxy.config.clients import CLIENT_KEYS, TEAM_KEYS
from sanic_proxy.config.model import VARIABLES
from sanic_proxy.config.providers import MODEL_KEYS, PROVIDER_KEYS
from sanic_proxy.config.tables import Table, table_schema
from sanic_proxy.config.variables import PREFIX, Kind, Schema

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


_PAGE = """\
# Settings

Settings come from the command's flags, the environment, `.env` in the working directory, and the TOML file
that `SANIC_PROXY_CONFIG` names; the first of these that has a setting wins. Durations are seconds (`90`) or
have units (`10m`, `1h30m`, `500ms`); sizes are bytes or have units (`32MiB`). All problems are reported
together, and the proxy does not start. `sanic-proxy check` reports them without starting.

| variable | default | meaning |
|---|---|---|
{settings}

`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` and `SSL_CERT_FILE` apply to connections to providers.
`NO_COLOR` turns off the colours of log lines on a terminal.

## Providers

A provider is on when its variable is set. `<NAME>_BASE_URL` changes its address. A variable may hold
several keys, separated by commas. A local server's key, if it has one, is in `<NAME>_API_KEY`
(`OLLAMA_API_KEY`). `AZURE_OPENAI_API_VERSION` selects a dated version of Azure's API (`2024-10-21`);
without it the undated one is used.

| provider | variable that turns it on | base URL |
|---|---|---|
{providers}

## The TOML file

`[proxy]` holds any setting above: lower case, without `SANIC_PROXY_`. In all texts `${{NAME}}` stands for the
value of a variable. `sanic-proxy init` writes a commented file to start from, with `proxy.schema.json`
beside it: editors with Taplo (Even Better TOML) complete and check the file by its first line,
`#:schema ./proxy.schema.json`. `sanic-proxy schema` prints the schema.

| `[providers.NAME]` | |
|---|---|
{provider_keys}

| `[models.NAME]` | |
|---|---|
{model_keys}

| `[clients.NAME]` | |
|---|---|
{client_keys}

| `[teams.NAME]` | |
|---|---|
{team_keys}

`[limits]` holds those of the last table from `rpm` on, for all clients together.
"""


def settings_page() -> str:
    """The settings reference, as Markdown."""
    return _PAGE.format(
        settings="\n".join(variable.row for variable in VARIABLES),
        providers="\n".join(provider_row(row) for row in ROWS if not row.is_embedded),
        provider_keys="\n".join(_key_rows(PROVIDER_KEYS)),
        model_keys="\n".join(_key_rows(MODEL_KEYS)),
        client_keys="\n".join(_key_rows(CLIENT_KEYS)),
        team_keys="\n".join(_key_rows(TEAM_KEYS)),
    )


def provider_row(row: Row) -> str:
    """A provider's row in the table of the documents."""
    names = ", ".join((row.name, *row.aliases))
    keys = " or ".join(f"`{name}`" for name in (row.key_variable, *row.other_key_variables))
    variable = keys if row.key_required else f"`{row.base_url_variable}`"
    address = f"`{row.base_url}`" if row.base_url else f"yours, such as `{row.example_url}`"
    if row.endpoint_variable:
        variable += f", with `{row.endpoint_variable}`"
        address = "`/openai/v1` at your resource"
    return f"| {names} | {variable} | {address} |"


def _key_rows(table: Table) -> Iterable[str]:
    for name, key in table.items():
        kind = "" if isinstance(key.kind, Kind) else f" (a table: {', '.join(key.kind)})"
        yield f"| `{name}` | {key.meaning}{kind} |"


def env_example() -> str:
    """An environment file with every provider's key and every setting with its default, commented out."""
    lines = ["# Copy to .env in the working directory, and remove the # of what you change.", ""]
    for row in ROWS:
        if not row.is_embedded:
            value = "" if row.key_required else row.example_url
            lines.append(f"#{row.key_variable if row.key_required else row.base_url_variable}={value}")
            lines += [f"#{name}=" for name in (row.endpoint_variable, row.version_variable) if name]
    for variable in VARIABLES:
        default = "" if ";" in variable.default or variable.default == "cores" else variable.default
        lines += ["", f"# {variable.meaning.replace('`', '')}", f"#{PREFIX}{variable.name}={default}"]
    return "\n".join(lines) + "\n"


def toml_schema() -> str:
    """The JSON Schema of the TOML file."""
    schema = {
        "$schema": SCHEMA_ID,
        "title": "sanic-proxy",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "proxy": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    variable.key: {**_or_text(variable.kind.schema()), "description": variable.meaning}
                    for variable in VARIABLES
                },
            },
            "providers": {"type": "object", "additionalProperties": table_schema(PROVIDER_KEYS)},
            "models": {
                "type": "object",
                "additionalProperties": {**table_schema(MODEL_KEYS), "required": ["targets"]},
            },
            "clients": {"type": "object", "additionalProperties": table_schema(CLIENT_KEYS)},
            "teams": {"type": "object", "additionalProperties": table_schema(TEAM_KEYS)},
            "limits": table_schema(LIMIT_KEYS),
        },
    }
    return json.dumps(schema, indent=2) + "\n"


def _or_text(schema: Schema) -> Schema:
    """Settings may be written as text, too, as in a variable."""
    kinds = schema.get("type")
    if isinstance(kinds, str) and kinds in {"integer", "number"}:
        return {**schema, "type": [kinds, "string"]}
    return schema
