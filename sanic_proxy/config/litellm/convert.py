"""LiteLLM's file -> the tables of our own configuration file, and a note for each of its keys. Pure.

The result is what an operator could have written by hand, so it is read by the code that reads such
files, and `sanic-proxy check --explain` can print it. Keys that are written in the file become variables with
made-up names (`LITELLM_KEY_1`), so that the tables hold none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanic_proxy.config.catalog import ROWS
from sanic_proxy.config.litellm import keys
from sanic_proxy.config.litellm.deployments import Defaults, Deployment, Reader
from sanic_proxy.config.litellm.document import Document
from sanic_proxy.config.litellm.models import Fallbacks, Grouping, model_tables
from sanic_proxy.config.litellm.notes import Note
from sanic_proxy.config.litellm.upstreams import Upstreams, seconds, timeouts
from sanic_proxy.config.litellm.work import LEFT_OUT, Work, referred
from sanic_proxy.config.secret import MIN_SECRET_CHARS
from sanic_proxy.config.variables import suggestion

MASTER_KEY = "LITELLM_MASTER_KEY"
# LiteLLM refuses to start with it; it stands in half of all examples.
_PUBLIC_KEY = "sk-1234"
MAX_ATTEMPTS = 20
MAX_ATTEMPTS_PER_TARGET = 10
_STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "least_in_flight",
    "latency-based-routing": "least_latency",
}
_LIMITING = frozenset({"usage-based-routing", "usage-based-routing-v2"})


@dataclass(frozen=True, slots=True)
class Converted:
    """`tables` are those of our file. `variables` are further variables; their values may be secret.

    `made_up` are the names of those that stand for values written in the file, and the lines of these.
    `lists_models`: the file has models, whether they can be served or not.
    """

    tables: dict[str, Any]
    variables: dict[str, str]
    notes: tuple[Note, ...]
    made_up: dict[str, int]
    lists_models: bool


def convert(document: Document, environ: Mapping[str, str]) -> Converted:
    """Convert a whole file. `environ` are the variables of the process, which win over those of the file."""
    own = _environment(document, environ)
    work = Work(document, {**own, **environ})
    for path in document.repeated:
        work.note(path, "ignored", "the key is repeated in one mapping: the last one counts")
    _note_sections(work)
    tables = _Converter(work).tables()
    notes = tuple(sorted(work.notes, key=lambda note: note.line))
    lists_models = bool(document.top("model_list"))
    return Converted(tables, {**own, **work.secrets}, notes, work.secret_lines, lists_models)


def _environment(document: Document, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the file sets."""
    given = document.section("environment_variables")
    named = {
        name: environ.get(referred(value) or "", "") if referred(value) else value
        for name, value in given.items()
    }
    return {name: str(value) for name, value in named.items() if isinstance(value, str | int | float)}


def _note_sections(work: Work) -> None:
    root = work.document.root
    if root is None:
        return
    if not isinstance(root, dict):
        work.note((), "ignored", "expected a mapping with model_list")
        return
    sections = {name: rules for name, rules in keys.SECTIONS.items() if name.endswith("_settings")}
    wrong = [name for name in sections if not isinstance(root.get(name), dict | None)]
    for name in wrong:
        work.note((name,), "ignored", "expected a mapping")
    work.note_keys((), root, keys.TOP, skip=wrong)
    for name, rules in sections.items():
        work.note_keys((name,), work.document.section(name), rules)


class _Converter:
    """The parts of the result, one method each."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._router = work.document.section("router_settings")
        self._litellm = work.document.section("litellm_settings")
        self._general = work.document.section("general_settings")
        self._upstreams = Upstreams(work)
        self._timeout_s = self._number("timeout", self._router) or self._number(
            "request_timeout", self._litellm
        )

    def tables(self) -> dict[str, object]:
        reader = Reader(self._work, self._upstreams, self._defaults())
        deployments = reader.read(self._work.document.top("model_list"))
        fallbacks = self._fallbacks(deployments)
        models = model_tables(
            deployments, fallbacks, self._grouping(), self._aliases(), note=self._note_fallback
        )
        proxy = self._proxy(fallbacks)
        if deployments:
            proxy["router"] = "on" if reader.passes_any else "off"
        found = {"proxy": proxy, "providers": self._upstreams.tables(), "models": models}
        return {name: table for name, table in found.items() if table}

    def _number(self, name: str, section: Mapping[str, object]) -> float | None:
        place = "router_settings" if section is self._router else "litellm_settings"
        return self._work.number((place, name), section.get(name))

    def _either(self, name: str) -> object:
        """A key that may stand in both sections."""
        return self._router[name] if self._router.get(name) is not None else self._litellm.get(name)

    def _note_fallback(self, name: str, text: str) -> None:
        section = "litellm_settings" if self._router.get(name) is None else "router_settings"
        self._work.note((section, name), "ignored", text)

    def _defaults(self) -> Defaults:
        listed = self._work.document.top("credential_list")
        credentials = {
            str(entry.get("credential_name")): entry["credential_values"]
            for entry in (listed if isinstance(listed, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("credential_values"), dict)
        }
        params = self._router.get("default_litellm_params")
        path = ("router_settings", "default_max_parallel_requests")
        return Defaults(
            params if isinstance(params, dict) else {},
            credentials,
            self._timeout_s,
            self._work.count(path, self._router.get("default_max_parallel_requests")),
            self._work.is_on(self._litellm.get("drop_params")),
        )

    # Models

    def _grouping(self) -> Grouping:
        path = ("router_settings", "routing_strategy")
        name = self._work.text(self._router.get("routing_strategy")) or "simple-shuffle"
        if name not in _STRATEGIES:
            known = [*_STRATEGIES, *_LIMITING, "cost-based-routing"]
            guess = "" if name in known else suggestion(name, known)
            self._work.note(path, "approximate", f"`weighted` takes the place of {name[:40]!r}{guess}")
        checks = self._router.get("optional_pre_call_checks")
        is_limiting = (
            name in _LIMITING
            or self._work.is_on(self._router.get("enable_pre_call_checks"))
            or (isinstance(checks, list) and "enforce_model_rate_limits" in checks)
        )
        return Grouping(_STRATEGIES.get(name, "weighted"), is_limiting)

    def _aliases(self) -> dict[str, tuple[str, bool]]:
        """Alias -> the name that it stands for, and whether it is hidden."""
        found: dict[str, tuple[str, bool]] = {}
        for section, key in ((self._litellm, "model_alias_map"), (self._router, "model_group_alias")):
            given = section.get(key)
            for alias, value in (given if isinstance(given, dict) else {}).items():
                name = value.get("model") if isinstance(value, dict) else value
                if isinstance(name, str):
                    found[alias] = (name, isinstance(value, dict) and self._work.is_on(value.get("hidden")))
        return found

    def _fallbacks(self, deployments: Sequence[Deployment]) -> Fallbacks:
        names = {deployment.name for deployment in deployments}
        limit = self._work.count(("router_settings", "max_fallbacks"), self._either("max_fallbacks"))
        return Fallbacks(
            _by_model(self._either("fallbacks")),
            _by_model(self._either("context_window_fallbacks")),
            _by_model(self._either("content_policy_fallbacks")),
            tuple(name for name in _names(self._either("default_fallbacks")) if name in names),
            limit or 5,
        )

    # Settings

    def _proxy(self, fallbacks: Fallbacks) -> dict[str, object]:
        proxy: dict[str, object] = {}
        self._add_keys(proxy)
        if self._timeout_s:
            proxy |= {f"timeout_{name}": value for name, value in timeouts(self._timeout_s).items()}
        if stream_s := self._number("stream_timeout", self._router):
            proxy["timeout_first_content"] = seconds(stream_s)
        self._add_retries(proxy, fallbacks)
        if self._work.is_on(self._router.get("disable_cooldowns")):
            proxy["breaker"] = False
        if self._work.is_on(self._litellm.get("json_logs")):
            proxy["log_format"] = "json"
        general = {
            name: self._work.count(("general_settings", name), self._general.get(name))
            for name in (
                "max_request_size_mb",
                "max_in_flight_requests_per_worker",
                "global_max_parallel_requests",
            )
        }
        if size_mb := general["max_request_size_mb"]:
            proxy["max_body_bytes"] = min(size_mb, 2**20) * 2**20
        concurrent = general["max_in_flight_requests_per_worker"] or general["global_max_parallel_requests"]
        if concurrent:
            proxy["max_concurrent"] = min(concurrent, 1_000_000)
        return proxy

    def _add_keys(self, proxy: dict[str, object]) -> None:
        """The master key. One that is named but not set stays as a reference to a variable, so that the proxy
        does not start: it would be open to everybody.
        """
        raw = self._general.get("master_key")
        if raw is None:
            raw = f"os.environ/{MASTER_KEY}" if self._work.environ.get(MASTER_KEY, "").strip() else None
        if raw is None:
            return
        path = ("general_settings", "master_key")
        key = self._work.text(raw)
        if raw == "":
            self._work.note(path, "ignored", "it is empty: no key is needed")
            return
        variable = referred(raw)
        if variable is None:
            variable = MASTER_KEY if key is None else self._work.secret(path, key, "MASTER_KEY")
        proxy["api_keys"] = [f"${{{variable}}}"]
        if key == _PUBLIC_KEY:
            self._work.note(path, "approximate", "this key is known to everybody: choose another one")
        if key is not None and len(key) < MIN_SECRET_CHARS:
            text = (
                f"a client key; too short for an admin key, which has {MIN_SECRET_CHARS} characters or more"
            )
            self._work.note(path, "approximate", text)
        else:
            proxy["admin_key"] = f"${{{variable}}}"

    def _add_retries(self, proxy: dict[str, object], fallbacks: Fallbacks) -> None:
        given = [
            self._number(name, section)
            for section, name in (
                (self._router, "num_retries"),
                (self._router, "max_retries"),
                (self._litellm, "num_retries"),
                (self._litellm, "num_retries_per_request"),
            )
        ]
        retries = next((number for number in given if number is not None), None)
        if retries is None:
            return
        tries = int(retries) + 1
        proxy["attempts_per_target"] = min(tries, MAX_ATTEMPTS_PER_TARGET)
        proxy["attempts"] = min(tries * (1 + fallbacks.longest), MAX_ATTEMPTS)


def _names(value: object) -> Iterator[str]:
    """The names of models in a list of fallbacks, whose entries may be mappings."""
    for entry in value if isinstance(value, list) else [value]:
        name = entry.get("model") if isinstance(entry, dict) else entry
        if isinstance(name, str):
            yield name


def _by_model(value: object) -> dict[str, tuple[str, ...]]:
    """Fallbacks by model: a list of mappings, as LiteLLM has it, or one mapping."""
    mappings = value if isinstance(value, list) else [value]
    return {
        name: tuple(_names(targets))
        for mapping in mappings
        if isinstance(mapping, dict)
        for name, targets in mapping.items()
    }


_REFERENCE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True, slots=True)
class Usable:
    """What of the tables can be used. `missing` has a sentence for each provider that is left out; `problems`
    say why the proxy cannot start.
    """

    tables: dict[str, Any]
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def usable(converted: Converted, environ: Mapping[str, str]) -> Usable:
    """The tables without the providers whose variables are not set, and without their targets.

    Our own file is rejected in that case; LiteLLM serves the rest. There has to be a rest, and a master key
    that the file names has to be set: without it, the proxy would be open to everybody.
    """
    providers = converted.tables.get("providers", {})
    absent = {
        name: variable
        for name, table in providers.items()
        if (variable := _missing(name, table, environ)) is not None
    }
    models, lost = _without(converted.tables.get("models", {}), absent)
    sentences = tuple(
        f"the variable {variable} is not set: without {name}, of {', '.join(lost[name]) or 'no model'}"
        for name, variable in absent.items()
    )
    proxy = dict(converted.tables.get("proxy", {}))
    problems: list[str] = []
    for variable in _references({"api_keys": "".join(proxy.get("api_keys", ()))}):
        if not environ.get(variable, "").strip():
            problems.append(
                f"the variable {variable} of the master_key is not set: everybody could use the proxy"
            )
            proxy.pop("admin_key", None)
            del proxy["api_keys"]
    if converted.lists_models and not models and proxy.get("router") != "on":
        problems.append("none of the models can be served")
        problems += [str(note) for note in converted.notes if LEFT_OUT in note.text]
        problems += sentences
        proxy.pop("router", None)
    kept = {name: table for name, table in providers.items() if name not in absent}
    found = {"proxy": proxy, "providers": kept, "models": models}
    tables = {name: table for name, table in found.items() if table}
    return Usable(tables, sentences, tuple(problems))


def _without(
    tables: Mapping[str, Any], absent: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, list[str]]]:
    """The models without the targets of `absent` providers, and the names that lose one, by provider."""
    models: dict[str, object] = {}
    lost: dict[str, list[str]] = {name: [] for name in absent}
    for model, table in tables.items():
        kept = []
        for target in table["targets"]:
            provider = target["provider"] if isinstance(target, Mapping) else target.partition("/")[0]
            if provider not in absent:
                kept.append(target)
            elif model not in lost[provider]:
                lost[provider].append(model)
        if any(not isinstance(target, Mapping) or "only_after" not in target for target in kept):
            models[model] = {**table, "targets": kept}
    return models, lost


def _missing(name: str, table: Mapping[str, object], environ: Mapping[str, str]) -> str | None:
    """A variable that the provider needs and that is not set."""
    for variable in _references(table):
        if not environ.get(variable, "").strip():
            return variable
    row = next((row for row in ROWS if row.name == name), None)
    if row is None or not row.key_required or row.key_variable is None or "api_key_env" in table:
        return None
    variables = (row.key_variable, *row.other_key_variables)
    return None if any(environ.get(variable, "").strip() for variable in variables) else row.key_variable


def _references(table: Mapping[str, object]) -> Iterator[str]:
    for name, value in table.items():
        if name == "api_key_env":
            yield str(value)
        elif isinstance(value, Mapping):
            yield from _references(value)
        elif isinstance(value, str):
            yield from _REFERENCE.findall(value)
