"""Flags, environment, `.env`, TOML file and defaults -> `Settings`. Opens nothing else.

Strategy: the layers are merged into one mapping of variable names to text, and environs reads
that; so a TOML value is checked exactly as the variable it stands for. Every problem is collected
before one `SettingsError` is raised, because an operator wants to mend them all at once. Flags
take part as environment variables, which the spawned workers inherit.
"""

from __future__ import annotations

import os
import re
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dotenv import dotenv_values
from environs import Env, EnvValidationError, validate
from typing_extensions import override

from sanic_proxy.config.catalog import ROWS, Row
from sanic_proxy.config.model import (
    HEARTBEATS,
    PREFIX,
    STRAICO_BASE_URL,
    VARIABLES,
    Capacity,
    Ending,
    ModelSettings,
    PoolLimits,
    ProviderOff,
    ProviderSettings,
    Secret,
    Settings,
    SettingsError,
    Switch,
    Timeouts,
    default_workers,
)


class _LayeredEnv(Env):
    """environs over a mapping of ours: it would read `os.environ` alone."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._layers = values

    @override
    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._layers.get(env_key, default)


def load(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Read the settings. Raises SettingsError with every problem.

    `environ` stands for the process's environment, `directory` for where `.env` is looked for.
    """
    return _Reader(os.environ if environ is None else environ, directory or Path.cwd()).settings()


class _Reader:
    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        dotenv_file = directory / ".env"
        dotenv = dotenv_values(dotenv_file, interpolate=False) if dotenv_file.is_file() else {}
        layers = {**{name: text for name, text in dotenv.items() if text is not None}, **environ}
        self.toml = self._toml(layers.get(PREFIX + "CONFIG", ""), directory)
        layers = {**self._toml_values(), **layers}
        # A blank variable is an unset one: that is how a shell switches a `.env` entry off.
        self.values = {name: text.strip() for name, text in layers.items() if text.strip()}
        self.env = _LayeredEnv(self.values)
        self._warn_of_unknown()

    def settings(self) -> Settings:
        env = self.env
        timeouts = self._timeouts()
        on, off = self._providers(timeouts)
        settings = Settings(
            host=self._text("HOST", "127.0.0.1"),
            port=self._int("PORT", 8000, low=1, high=65535),
            workers=self._int("WORKERS", default_workers(), low=1, high=1024),
            router=cast("Switch", self._choice("ROUTER", "auto", ("auto", "on", "off"))),
            echo=cast("Switch", self._choice("ECHO", "auto", ("auto", "on", "off"))),
            heartbeat=self._choice("HEARTBEAT_CHAR", "", tuple(HEARTBEATS)),
            heartbeat_interval_s=self._seconds("HEARTBEAT_INTERVAL", 3),
            pool=PoolLimits(
                idle_per_host=self._int("POOL_IDLE_PER_HOST", 512, low=0, high=100_000),
                idle_timeout_s=self._seconds("POOL_IDLE_TIMEOUT", 15),
                tcp_keepalive_s=self._int("TCP_KEEPALIVE", 90, low=1, high=32767),
            ),
            client_timeout_s=self._seconds("TIMEOUT_CLIENT", 60),
            max_body_bytes=self._int("MAX_BODY_BYTES", 33_554_432, low=1024, high=2**40),
            max_upload_bytes=self._int("MAX_UPLOAD_BYTES", 536_870_912, low=1024, high=2**40),
            api_keys=tuple(self._key(PREFIX + "API_KEYS", key) for key in self._list("API_KEYS")),
            allow_open=env.bool(PREFIX + "ALLOW_OPEN", False),
            cors_origins=frozenset(origin.rstrip("/").lower() for origin in self._list("CORS_ORIGINS")),
            allowed_hosts=frozenset(host.lower() for host in self._list("ALLOWED_HOSTS")),
            log_level=self._choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            log_format=self._choice("LOG_FORMAT", "text", ("text", "json")),
            access_log=env.bool(PREFIX + "ACCESS_LOG", True),
            ssl_cert_file=self._ssl_cert_file(),
            timeouts=timeouts,
            ending=Ending(
                lame_duck_s=self._seconds("LAME_DUCK_SECONDS", 5, zero=True),
                drain_s=self._seconds("DRAIN_SECONDS", 300, zero=True),
            ),
            capacity=Capacity(
                concurrent=self._int("MAX_CONCURRENT", 2000, low=0, high=1_000_000),
                bytes_in_flight=self._int("MAX_BYTES_IN_FLIGHT", 2**30, low=0, high=2**50),
            ),
            providers=on,
            providers_off=off,
            models=self._models({name for entry in on for name in (entry.name, *entry.aliases)}),
            attempts=self._int("ATTEMPTS", 4, low=1, high=20),
            breaker=env.bool(PREFIX + "BREAKER", True),
            attempts_per_target=self._int("ATTEMPTS_PER_TARGET", 2, low=1, high=10),
            warnings=tuple(self.warnings),
        )
        try:
            env.seal()
        except EnvValidationError as exc:
            texts = cast("Mapping[str, list[str]]", exc.error_messages)
            self.problems += [f"{name}: {' '.join(said)}" for name, said in texts.items()]
        self._check_together(settings)
        if self.problems:
            raise SettingsError(self.problems)
        return settings

    def _check_together(self, settings: Settings) -> None:
        if "*" in settings.cors_origins and settings.is_open:
            self.problems.append(
                f"{PREFIX}CORS_ORIGINS: `*` without {PREFIX}API_KEYS would let every web page use the proxy"
            )

    # One variable each

    def _text(self, name: str, default: str) -> str:
        return self.env.str(PREFIX + name, default)

    def _list(self, name: str) -> list[str]:
        return [part.strip() for part in self._text(name, "").split(",") if part.strip()]

    def _int(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.env.int(PREFIX + name, default, validate=validate.Range(low, high))
        return value if isinstance(value, int) else default

    def _seconds(self, name: str, default: float, *, zero: bool = False) -> float:
        rule = validate.Range(0, 86400, min_inclusive=zero)
        value = self.env.float(PREFIX + name, default, validate=rule)
        return float(value) if isinstance(value, int | float) else default

    def _choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self._text(name, default).lower()
        if value not in choices:
            allowed = ", ".join(choice or "empty" for choice in choices)
            self.problems.append(f"{PREFIX}{name}: must be one of: {allowed}")
            return default
        return value

    def _key(self, variable: str, key: str) -> Secret:
        # A key goes into a header: what cannot stand there is refused here, and never shown.
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            self.problems.append(f"{variable}: holds a space or a character that is not printable ASCII")
        return Secret(key)

    def _timeouts(self) -> Timeouts:
        return Timeouts(
            connect_s=self._seconds("TIMEOUT_CONNECT", 5),
            first_byte_s=self._seconds("TIMEOUT_FIRST_BYTE", 300),
            idle_s=self._seconds("TIMEOUT_IDLE", 120),
            total_s=self._seconds("TIMEOUT_TOTAL", 600),
            stall_s=self._seconds("TIMEOUT_STALL", 120),
        )

    def _ssl_cert_file(self) -> str | None:
        path = self.values.get("SSL_CERT_FILE")
        if path and not Path(path).is_file():
            self.problems.append("SSL_CERT_FILE: there is no such file")
            return None
        return path

    def _warn_of_unknown(self) -> None:
        known = {PREFIX + variable.name for variable in VARIABLES}
        for name in sorted(self.values):
            if name.startswith(PREFIX) and name not in known:
                self.warnings.append(f"{name} is not a setting of this proxy")

    # The TOML file

    def _toml(self, path: str, directory: Path) -> dict[str, Any]:
        if not path.strip():
            return {}
        try:
            parsed = tomllib.loads((directory / path.strip()).read_text("utf-8"))
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            self.problems.append(f"{PREFIX}CONFIG: {path} cannot be read: {reason}")
            return {}
        for name in parsed.keys() - {"proxy", "providers", "models"}:
            self.problems.append(f"{path}: [{name}] is not a table of this proxy")
        return parsed

    def _toml_values(self) -> dict[str, str]:
        known = {variable.name.lower() for variable in VARIABLES}
        table = self.toml.get("proxy", {})
        if not isinstance(table, dict):
            self.problems.append("[proxy] must be a table")
            return {}
        for name in table.keys() - known:
            self.problems.append(f"[proxy] {name}: is not a setting of this proxy")
        return {PREFIX + name.upper(): _toml_text(value) for name, value in table.items() if name in known}

    # The providers

    def _providers(self, timeouts: Timeouts) -> tuple[tuple[ProviderSettings, ...], tuple[ProviderOff, ...]]:
        on: list[ProviderSettings] = []
        off: list[ProviderOff] = []
        tables = self._provider_tables()
        known = {row.name: row for row in ROWS}
        rows = [
            _STRAICO,
            *ROWS,
            *(_custom_row(name, tables[name]) for name in tables if name not in known),
        ]
        for row in rows:
            if row.name == "straico" and row is not _STRAICO:
                continue
            provider = self._provider(row, tables.get(row.name, {}), timeouts)
            if provider is None:
                off.append(ProviderOff(row.name, _turns_on(row), row.aliases))
            else:
                on.append(provider)
        echo = self._choice("ECHO", "auto", ("auto", "on", "off"))
        if echo == "on" or (echo == "auto" and not on):
            on.append(ProviderSettings("echo", "echo", "", None, 10.0, timeouts))
        else:
            off.append(ProviderOff("echo", PREFIX + "ECHO"))
        return tuple(on), tuple(off)

    def _provider(self, row: Row, table: Mapping[str, Any], timeouts: Timeouts) -> ProviderSettings | None:
        key, *spare_keys = self._provider_keys(row)
        base_url = self.values.get(row.base_url_variable) or table.get("base_url") or row.base_url
        if not isinstance(base_url, str) or (row.key_required and key is None):
            return None
        self._check_base_url(row.base_url_variable, base_url)
        is_straico = row is _STRAICO
        return ProviderSettings(
            name=row.name,
            protocol="straico" if is_straico else "openai",
            base_url=base_url.rstrip("/"),
            key=key,
            spare_keys=tuple(spare for spare in spare_keys if spare is not None),
            commit_delay_s=self._commit_delay(row.name, table, 3.0 if is_straico else 10.0),
            timeouts=self._provider_timeouts(row.name, table, timeouts),
            aliases=row.aliases,
            headers=self._headers(row.name, table),
            forward_headers=row.forward_headers,
            models=_texts(table.get("models")) or row.models,
            models_path=row.models_path,
            model_prefix=row.model_prefix,
            proxy=self._outbound_proxy(base_url),
        )

    def _provider_keys(self, row: Row) -> list[Secret | None]:
        """The keys in one variable, separated by commas; [None] without any."""
        for variable in (row.key_variable, *row.other_key_variables):
            if variable and variable in self.values:
                keys = [part.strip() for part in self.values[variable].split(",") if part.strip()]
                return [self._key(variable, key) for key in keys] or [None]
        return [None]

    def _models(self, providers: set[str]) -> tuple[ModelSettings, ...]:
        """The tables `[models.<name>]`: names that stand for several targets in order."""
        tables = self.toml.get("models", {})
        if not isinstance(tables, dict):
            self.problems.append("[models] must hold tables")
            return ()
        models = []
        for name, table in tables.items():
            given = table.get("targets") if isinstance(table, dict) else None
            pairs = [_target(entry) for entry in given] if isinstance(given, list) else []
            if not pairs or None in pairs or set(table) != {"targets"} or not _MODEL_NAME.fullmatch(name):
                self.problems.append(
                    f'[models.{name}]: needs `targets`, a list of "provider/model" or of tables with both'
                )
                continue
            targets = tuple(pair for pair in pairs if pair is not None)
            for provider in {provider for provider, _ in targets} - providers:
                self.problems.append(f"[models.{name}]: the provider {provider} is not on")
            models.append(ModelSettings(name, targets))
        return tuple(models)

    def _provider_tables(self) -> dict[str, dict[str, Any]]:
        tables = self.toml.get("providers", {})
        if not isinstance(tables, dict):
            self.problems.append("[providers] must hold tables")
            return {}
        aliases = {alias for row in ROWS for alias in row.aliases}
        good: dict[str, dict[str, Any]] = {}
        for name, table in tables.items():
            if (
                not isinstance(table, dict)
                or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name)
                or name == "echo"
            ):
                self.problems.append(
                    f"[providers.{name}]: a provider is a table with a lower-case name of its own"
                )
            elif name in aliases:
                self.problems.append(f"[providers.{name}]: the name is an alias of another provider")
            else:
                good[name] = table
                self._check_provider_table(name, table)
        return good

    def _check_provider_table(self, name: str, table: Mapping[str, Any]) -> None:
        known = {"base_url", "api_key_env", "headers", "models", "commit_delay", "timeouts"}
        self.problems += [
            f"[providers.{name}] {key}: is not a setting" for key in sorted(table.keys() - known)
        ]
        for key in ("base_url", "api_key_env"):
            if key in table and not isinstance(table[key], str):
                self.problems.append(f"[providers.{name}] {key}: must be text")
        if name not in {row.name for row in ROWS} | {"straico"} and not isinstance(
            table.get("base_url"), str
        ):
            self.problems.append(f"[providers.{name}]: needs a base_url")
        if "models" in table and not _texts(table["models"]):
            self.problems.append(f"[providers.{name}] models: must be a list of names")

    def _headers(self, name: str, table: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        headers = table.get("headers", {})
        if not isinstance(headers, dict):
            self.problems.append(f"[providers.{name}] headers: must be a table")
            return ()
        for header, value in headers.items():
            good = isinstance(value, str) and re.fullmatch(r"[\x20-\x7e]*", value)
            if not good or not re.fullmatch(r"[A-Za-z0-9-]+", header):
                self.problems.append(
                    f"[providers.{name}] headers: {header!r} is not a header of printable ASCII"
                )
        return tuple((header.lower(), str(value)) for header, value in headers.items())

    def _commit_delay(self, name: str, table: Mapping[str, Any], default: float) -> float:
        if "commit_delay" in table:
            return self._toml_seconds(f"[providers.{name}] commit_delay", table["commit_delay"], zero=True)
        return self._seconds("STREAM_COMMIT_DELAY", default, zero=True)

    def _provider_timeouts(self, name: str, table: Mapping[str, Any], base: Timeouts) -> Timeouts:
        given = table.get("timeouts", {})
        clocks = {"connect", "first_byte", "idle", "total", "stall"}
        if not isinstance(given, dict) or given.keys() - clocks:
            self.problems.append(f"[providers.{name}] timeouts: may hold {', '.join(sorted(clocks))}")
            return base

        def clock(key: str, default: float) -> float:
            return self._toml_seconds(f"[providers.{name}] timeouts.{key}", given.get(key, default))

        return Timeouts(
            connect_s=clock("connect", base.connect_s),
            first_byte_s=clock("first_byte", base.first_byte_s),
            idle_s=clock("idle", base.idle_s),
            total_s=clock("total", base.total_s),
            stall_s=clock("stall", base.stall_s),
        )

    def _toml_seconds(self, where: str, value: object, *, zero: bool = False) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (0 <= cast("float", value) <= 86400) or (value == 0 and not zero):
            self.problems.append(f"{where}: must be seconds")
            return 1.0
        return float(cast("float", value))

    def _check_base_url(self, variable: str, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
            parts = urllib.parse.SplitResult("", "", "", "", "")
        if not good or parts.query or parts.fragment or parts.username or not url.isascii() or " " in url:
            self.problems.append(f"{variable}: must be an http or https URL without user, query or fragment")

    def _outbound_proxy(self, base_url: str) -> Secret | None:
        """The HTTPS_PROXY or HTTP_PROXY this provider is reached through, NO_PROXY respected."""
        parts = urllib.parse.urlsplit(base_url)
        proxy = self._proxy_variable(f"{parts.scheme}_proxy")
        if not proxy or urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
            parts.netloc, {"no": self._proxy_variable("no_proxy")}
        ):
            return None
        return Secret(proxy if "://" in proxy else f"http://{proxy}")

    def _proxy_variable(self, name: str) -> str:
        return self.values.get(name) or self.values.get(name.upper()) or ""


_STRAICO = Row(
    name="straico",
    base_url=STRAICO_BASE_URL,
    key_variable="STRAICO_API_KEY",
    models_path="/v2/models",
    docs="documenter.getpostman.com/view/5900072/2s9YyzddrR",
)


def _custom_row(name: str, table: Mapping[str, Any]) -> Row:
    key_variable = table.get("api_key_env")
    return Row(
        name=name,
        base_url=None,
        key_variable=key_variable if isinstance(key_variable, str) else None,
        key_required="api_key_env" in table,
    )


_MODEL_NAME = re.compile(r"[!-~]{1,256}")


def _target(entry: object) -> tuple[str, str] | None:
    """A target as (provider, model), from either way to write it."""
    if isinstance(entry, str):
        provider, _, model = entry.partition("/")
    elif isinstance(entry, dict) and set(entry) == {"provider", "model"}:
        provider, model = entry["provider"], entry["model"]
    else:
        return None
    is_good = isinstance(provider, str) and isinstance(model, str) and provider and model
    return (provider.lower(), model) if is_good else None


def _turns_on(row: Row) -> str:
    return row.base_url_variable if not row.key_required else (row.key_variable or row.base_url_variable)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    return ()


def _toml_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
