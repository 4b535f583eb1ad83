"""Flags, environment, `.env`, TOML file and defaults -> `Settings`. Opens nothing else.

Every problem is collected before one `SettingsError` is raised, so that an operator sees all of them at once.
Values are parsed by environs, with one parser that uses the declared `Kind` of each variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from environs import Env, EnvError, EnvValidationError
from typing_extensions import override

from sanic_proxy.config import layers, tracing
from sanic_proxy.config.clients import ClientReader
from sanic_proxy.config.layers import Layers
from sanic_proxy.config.model import MIN_HANG_TIMEOUT_S, Settings, SettingsError
from sanic_proxy.config.outbound import outbound_proxy
from sanic_proxy.config.providers import ProviderReader
from sanic_proxy.config.variables import PREFIX, Kind, Variable, declared, value_problem

D = TypeVar("D")


def load(
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    *,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings. Raises SettingsError with every problem.

    `environ` stands for the process's environment, `directory` for where `.env` and the TOML file are looked
    for. `flags` names the command-line flag that set a variable, for messages.
    """
    found = layers.read(os.environ if environ is None else environ, directory or Path.cwd())
    _add_stand_ins(found)
    reader = _Reader(found, flags or {})
    settings = reader.read(Settings)
    found.problems += reader.problems()
    providers = ProviderReader(found, settings)
    on, off = providers.read()
    clients = ClientReader(found, settings.api_keys)
    teams = clients.teams()
    settings = replace(
        settings,
        ssl_cert_file=_ssl_cert_file(found),
        tracing=replace(settings.tracing, proxy=outbound_proxy(settings.tracing.endpoint, found.values)),
        providers=on,
        providers_off=off,
        models=providers.models(on),
        clients=clients.clients(teams),
        teams=teams,
        limits=clients.limits(),
    )
    _check_together(settings, found)
    if found.problems:
        raise SettingsError(found.problems)
    return replace(settings, warnings=tuple(found.warnings))


def explain(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> str:
    """Our own TOML for the LiteLLM file that the settings name. Raises SettingsError where there is none."""
    found = layers.read(os.environ if environ is None else environ, directory or Path.cwd())
    if found.litellm is None:
        raise SettingsError(
            [problem for problem in found.problems if PREFIX in problem]
            or ["--explain needs --config with a file of LiteLLM's, whose name ends in .yaml or .yml"]
        )
    from sanic_proxy.config.litellm.explain import explanation  # noqa: PLC0415 - only with such a file

    return explanation(found.litellm, Path(found.config).name)


class _LayeredEnv(Env):
    """environs over the merged layers: it would read `os.environ` alone."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._layers = values

    @override
    def _get_value(self, env_key: str, default: object) -> object:
        return self._layers.get(env_key, default)


class _Reader:
    """Fills the declared fields of a dataclass; what is wrong keeps its default and is a problem."""

    def __init__(self, found: Layers, flags: Mapping[str, str]) -> None:
        self._found = found
        self._flags = {PREFIX + name: flag for name, flag in flags.items()}
        self._env = _LayeredEnv(found.values)
        self._env.add_parser("setting", _parsed)

    def read(self, kind: type[D]) -> D:
        """An object of the dataclass `kind`, and of the dataclasses within it."""
        values: dict[str, object] = {}
        for name, entry in declared(kind):
            if not isinstance(entry, Variable):
                values[name] = self.read(entry)
            elif PREFIX + entry.name in self._found.values:
                value = self._env.setting(PREFIX + entry.name, kind=entry.kind)
                if value is not None:
                    values[name] = value
        return kind(**values)

    def problems(self) -> list[str]:
        """A sentence for each value that was wrong."""
        try:
            self._env.seal()
        except EnvValidationError as exc:
            texts = cast("Mapping[str, list[str]]", exc.error_messages)
            return [
                f"{self._found.where(name, self._flags)}: {' '.join(found)}" for name, found in texts.items()
            ]
        return []


def _parsed(text: str, *, kind: Kind[object]) -> object:
    try:
        return kind.parse(text)
    except ValueError as exc:
        raise EnvError(value_problem(text, kind, exc)) from None


def _add_stand_ins(found: Layers) -> None:
    """Use OpenTelemetry's variables for those of ours that are not set."""
    others, warnings = tracing.stand_ins(found.values)
    for name, (value, origin) in others.items():
        found.values[name], found.sources[name] = value, f" (from {origin})"
    found.warnings += warnings


def _ssl_cert_file(found: Layers) -> str | None:
    path = found.values.get("SSL_CERT_FILE")
    if path and not Path(path).is_file():
        found.problems.append(f"SSL_CERT_FILE: there is no file {path}")
        return None
    return path


def _check_together(settings: Settings, found: Layers) -> None:
    if settings.cors_origins.allow_all and settings.is_open:
        found.problems.append(
            f"{PREFIX}CORS_ORIGINS: `*` without {PREFIX}API_KEYS would let every web page use the proxy"
        )
    if settings.admin_address is not None and settings.admin_key is None:
        found.problems.append(
            f"{PREFIX}ADMIN_ADDRESS is set and {PREFIX}ADMIN_KEY is not: there would be nothing to serve"
        )
    _check_capture(settings, found)
    if 0 < settings.hang_timeout_s < MIN_HANG_TIMEOUT_S:
        found.problems.append(
            f"{PREFIX}HANG_TIMEOUT: must be 0 (off) or at least {MIN_HANG_TIMEOUT_S:.0f} seconds"
        )
    if not settings.router_is_on:
        _check_reach(settings, found)


def _check_capture(settings: Settings, found: Layers) -> None:
    """What is captured needs a file in a directory that exists, and what is replayed a file."""
    tables = [f"[clients.{client.rules.name}]" for client in settings.clients if client.rules.capture]
    tables += [f"[models.{model.name}]" for model in settings.models if model.capture]
    if not settings.capture.file:
        found.problems += [f"{table} capture: needs {PREFIX}CAPTURE_FILE" for table in tables]
    elif not settings.capture.path.parent.is_dir():
        found.problems.append(f"{PREFIX}CAPTURE_FILE: there is no directory {settings.capture.path.parent}")
    if settings.replay.file and not Path(settings.replay.file).is_file():
        found.problems.append(f"{PREFIX}REPLAY_FILE: there is no file {settings.replay.file}")


def _check_reach(settings: Settings, found: Layers) -> None:
    """With the router off, names reach the provider that serves any name, and those of `[models]` tables."""
    named = {target.provider for model in settings.models for target in model.targets}
    lost = [
        provider.name
        for provider in settings.providers
        if not provider.serves_any_name and not {provider.name, *provider.aliases} & named
    ]
    if len(lost) == len(settings.providers):
        found.problems.append(
            f"{PREFIX}ROUTER is off and no model name reaches a provider: set {PREFIX}ROUTER=on"
        )
    elif lost and found.litellm is None:  # such a file names all that is to be reached
        found.warnings.append(
            f"the router is off, so no model name reaches {', '.join(lost)}; set {PREFIX}ROUTER=on"
        )
