"""The tables `[providers.NAME]` and `[models.NAME]`, and the variables that turn providers on.

The keys of a table are declared as data, as the settings are: `PROVIDER_KEYS` and `MODEL_KEYS` drive the
reader and the JSON Schema.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from typing_extensions import override

from sanic_proxy.config.budgets import BUDGET_KEYS, scope_limits
from sanic_proxy.config.capture import CAPTURE_KEYS, capture_share
from sanic_proxy.config.catalog import ROWS, Row, vendor_at
from sanic_proxy.config.hedging import HedgeTable
from sanic_proxy.config.layers import Layers
from sanic_proxy.config.model import (
    ModelSettings,
    ProviderOff,
    ProviderSettings,
    RequestOptions,
    Settings,
    Timeouts,
)
from sanic_proxy.config.outbound import outbound_proxy
from sanic_proxy.config.prices import PIECE_KEYS, RATE_KEYS, SERVICES, PriceTable
from sanic_proxy.config.saving import (
    ON_CUT,
    ContinuationKind,
    HoldBackKind,
    StreamSaving,
    continuation,
)
from sanic_proxy.config.secret import Secret
from sanic_proxy.config.tables import Key, Number, Table, TableReader
from sanic_proxy.config.targets import (
    AFFINITIES,
    MAX_COUNT,
    STRATEGIES,
    TARGET_KEYS,
    TargetList,
    Weights,
    with_defaults,
)
from sanic_proxy.config.urls import ENDPOINTS, url_fault, without_password
from sanic_proxy.config.variables import (
    PREFIX,
    Choice,
    Duration,
    Flag,
    Headers,
    Integer,
    Keys,
    Kind,
    Params,
    Schema,
    Text,
    TextList,
    suggestion,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Versions of Azure's API that are not dated: its undated endpoint takes their place.
_UNDATED = frozenset({"", "latest", "preview", "v1"})
_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
# What follows the address of a resource, and is sometimes pasted with it.
_PASTED_BASE = re.compile(r"/openai(/v1)?\Z")
_MODEL_NAME = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")


@dataclass(frozen=True)
class DialectList(Kind[tuple[str, ...]]):
    """Names of dialects, each once."""

    @property
    @override
    def expects(self) -> str:
        return f"a list of {', '.join(DIALECT_NAMES)}"

    @override
    def parse(self, text: str) -> tuple[str, ...]:
        raise ValueError

    @override
    def from_toml(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not set(value) <= set(DIALECT_NAMES):
            raise ValueError
        return tuple(dict.fromkeys(value))

    @override
    def schema(self) -> Schema:
        return {"type": "array", "minItems": 1, "items": {"enum": list(DIALECT_NAMES)}}


DIALECT_NAMES = ("chat", "messages", "responses", "gemini")


PARAMETER_KEYS: Table = {
    "default_params": Key(Params(), "parameters for requests that have none of that name"),
    "set_params": Key(Params(), "parameters that replace those of the request"),
    "remove_params": Key(TextList("a list of parameter names"), "parameters that are removed"),
    "thinking": Key(
        Choice(("adaptive", "budget")),
        "how translations ask for reasoning: `adaptive`; `budget` for Claude before 4.6, Gemini before 3",
    ),
    "sampling": Key(
        Flag(),
        "`true`: translated Messages keep temperature, top_p and top_k, which current Claude models reject",
    ),
}
PROVIDER_KEYS: Table = {
    "base_url": Key(Text("a URL"), "the URL that `/chat/completions` follows"),
    "api_key_env": Key(
        Text("the name of a variable"), "the variable that holds the key; none: no key is sent"
    ),
    "key_weights": Key(
        Weights(),
        "the share of requests of each key, in the order of the keys; those of weight 0 are tried last",
    ),
    "headers": Key(Headers(), "further headers of each request"),
    "models": Key(TextList("a list of model names"), "the models, instead of requesting the provider's list"),
    "commit_delay": Key(Duration(zero=True), f"in place of {PREFIX}STREAM_COMMIT_DELAY"),
    "timeouts": Key(
        {
            field.name.removesuffix("_s"): Key(
                Duration(), f"in place of {PREFIX}TIMEOUT_{field.name[:-2].upper()}"
            )
            for field in fields(Timeouts)
        },
        "the clocks of this provider",
    ),
    "dialects": Key(
        DialectList(),
        "the provider's APIs for conversations: `chat`, `messages`, `responses`, `gemini`; "
        "requests of other APIs are translated into the first",
    ),
    "key_header": Key(
        Text("the name of a header"), "the header of the key; `authorization` holds it as a Bearer token"
    ),
    "stream_usage": Key(Flag(), "`false`: translated streams do not request their usage"),
    "hoist_system": Key(
        Flag(), "`false`: translated requests keep system messages where they stand; else all come first"
    ),
    "continues": Key(
        ContinuationKind(),
        "for `on_cut`: the provider continues an answer that is the last message; `true`, or the mark that "
        "it needs: `prefix`, `partial`, `continue_final_message`",
    ),
    "metrics_url": Key(
        Text("a URL"),
        "metrics of a self-hosted engine (vLLM, SGLang, llama.cpp): its queue counts as load",
    ),
    "trace": Key(
        Flag(),
        "`true`: requests carry `traceparent` and `tracestate`, so that the provider's spans join the trace",
    ),
    "cache_ttl": Key(
        Duration(), "how long the provider caches a prompt; a session without requests is forgotten then"
    ),
    "free": Key(Flag(), "`true`: its models cost nothing, as those of local servers"),
    "cost_unit": Key(
        Number(0, 1e6),
        "US dollars for the unit in which the provider reports what a request costs, such as a coin",
    ),
    "priced_as": Key(
        Choice(tuple(row.name for row in ROWS)),
        "the provider whose prices hold; default: itself, or the one with the same host",
    ),
    **PARAMETER_KEYS,
    "unify_reasoning": Key(
        Flag(), "reasoning always as `reasoning_content`; off: under the name that the provider uses"
    ),
}
MODEL_KEYS: Table = {
    "targets": Key(
        TargetList(),
        f"the targets that the name stands for, in order, as text or as tables with {', '.join(TARGET_KEYS)}",
    ),
    "strategy": Key(
        Choice(STRATEGIES),
        "which target is first: `order` (default), `weighted` (at random, by `weight`), `least_in_flight`, "
        "`least_latency` or `prefix` (the longest known beginning of the prompt)",
    ),
    "affinity": Key(
        Choice(AFFINITIES),
        "a session meets the same target, unless the strategy is `order`: `auto` (default), where the client "
        "names its session; `prompt`, also where conversations begin the same; `off`",
    ),
    "first_content": Key(Duration(zero=True), f"in place of {PREFIX}TIMEOUT_FIRST_CONTENT"),
    "max_wait": Key(Duration(zero=True), f"in place of {PREFIX}MAX_WAIT"),
    "hold_back": Key(
        HoldBackKind(),
        "how long a stream's content waits, so that no client sees a failure meanwhile: seconds, `20 frames` "
        "or `all`",
    ),
    "on_cut": Key(
        Choice(ON_CUT),
        "when a stream fails after that: `error` (default), `continue` it with another target, or `restart` "
        "it and go on if the text is the same",
    ),
    "skip_malformed": Key(
        Flag(), "malformed frames of a stream are dropped and counted, unless it has tool calls"
    ),
    "collect": Key(
        Flag(),
        "whole answers are requested as streams and put together, so that `first_content` holds for them too",
    ),
    "hedge": Key(
        HedgeTable(),
        "a second attempt at another target while the first one is silent: `true`, or a table with `after` "
        "(seconds, or a percentile of the model's recent times: `p95`) and `budget` (the largest share of "
        "requests, 0.03)",
    ),
    **PARAMETER_KEYS,
    "strict": Key(
        Flag(),
        "reject a request of which a translation would lose something, instead of naming it in a header",
    ),
    "context_window": Key(Integer(1, MAX_COUNT), "tokens, of the targets that do not say theirs"),
    "max_output": Key(
        Integer(1, MAX_COUNT), "the most tokens that the model writes, of the targets that do not say theirs"
    ),
    "max_image_tokens": Key(
        Integer(1, MAX_COUNT),
        "the most tokens that an image counts as, for strict budgets, of the targets that do not say theirs",
    ),
    "prices": Key(
        PriceTable(),
        "US dollars per million tokens, of the targets that do not say theirs: "
        f"{', '.join(RATE_KEYS)}; per piece: {', '.join(PIECE_KEYS)}; `tiers` and tables by service tier "
        f"({', '.join(SERVICES)}) have rates of their own",
    ),
    "hidden": Key(Flag(), "the name can be used and is not listed"),
    **CAPTURE_KEYS,
    **BUDGET_KEYS,
}


class ProviderReader:
    """Reads providers and models out of the layers; problems and warnings are added to these."""

    def __init__(self, found: Layers, settings: Settings) -> None:
        self._found = found
        self._settings = settings
        self._problems = found.problems
        self._reader = TableReader(found.toml, found.problems)

    def read(self) -> tuple[tuple[ProviderSettings, ...], tuple[ProviderOff, ...]]:
        """The providers that are on, and those that are known and off."""
        on: list[ProviderSettings] = []
        off: list[ProviderOff] = []
        tables = self._tables()
        known = {row.name for row in ROWS}
        custom = [_custom_row(name, table) for name, table in tables.items() if name not in known]
        for row in (*(row for row in ROWS if not row.is_embedded), *custom):
            provider = self._provider(row, tables.get(row.name, {}))
            if provider is not None:
                on.append(provider)
            else:
                off.append(ProviderOff(row.name, _turned_on_by(row), row.aliases))
                if row.name in tables and row.key_variable is not None:
                    self._found.warnings.append(
                        f"[providers.{row.name}] is off: the variable {row.key_variable} is not set"
                    )
        for row in ROWS:
            if row.is_embedded:
                self._add_embedded(row, on, off)
        return tuple(on), tuple(off)

    def _add_embedded(self, row: Row, on: list[ProviderSettings], off: list[ProviderOff]) -> None:
        settings = self._settings
        if row.is_replay:
            is_on = bool(settings.replay.file)
        else:
            is_on = settings.embedded == "on" or (settings.embedded == "auto" and not on)
        if not is_on:
            variable = f"{PREFIX}{row.name.upper()}{'_FILE' if row.is_replay else ''}"
            off.append(ProviderOff(row.name, variable, row.aliases))
            return
        on.append(
            ProviderSettings(
                row.name,
                row.protocol,
                "",
                None,
                row.commit_delay_s,
                settings.timeouts,
                dialects=row.dialects,
                is_free=row.is_free,
            )
        )

    def models(self, on: Iterable[ProviderSettings]) -> tuple[ModelSettings, ...]:
        """The tables `[models.NAME]`."""
        known = {name: provider.name for provider in on for name in (provider.name, *provider.aliases)}
        models = []
        for name, table in self._reader.subtables("models").items():
            where = f"[models.{name}]"
            if not _MODEL_NAME.fullmatch(name):
                self._problems.append(
                    f"{where}: a model's name is up to 256 printable ASCII characters, no space at its ends"
                )
                continue
            values = self._reader.values(where, table, MODEL_KEYS)
            if "targets" not in table:
                self._problems.append(f"{where}: needs targets, {TargetList().expects}")
            targets = with_defaults(values.get("targets", ()), values)
            for provider in sorted({target.provider for target in targets} - known.keys()):
                self._problems.append(
                    f"{where}: the provider {provider} is not on{suggestion(provider, sorted(known))}"
                )
            models.append(
                ModelSettings(
                    name,
                    tuple(replace(target, provider=known.get(target.provider, "")) for target in targets),
                    values.get("first_content"),
                    _options(values),
                    values.get("strategy", "order"),
                    values.get("hidden", False),
                    _saving(values),
                    values.get("affinity", "auto"),
                    scope_limits(values),
                    values.get("hedge"),
                    values.get("max_wait"),
                    capture_share(values),
                )
            )
        return tuple(models)

    # Tables

    def _tables(self) -> dict[str, dict[str, object]]:
        aliases = {alias: row.name for row in ROWS for alias in row.aliases}
        known = {row.name: row for row in ROWS}
        good: dict[str, dict[str, object]] = {}
        for name, table in self._reader.subtables("providers").items():
            where = f"[providers.{name}]"
            if not _NAME.fullmatch(name):
                self._problems.append(f"{where}: a provider's name is lower-case letters, digits, - and _")
            elif name in aliases:
                self._problems.append(
                    f"{where}: {name} is another name of {aliases[name]}; use [providers.{aliases[name]}]"
                )
            elif name in known and known[name].is_embedded:
                self._problems.append(f"{where}: the embedded provider has no settings")
            else:
                good[name] = self._reader.values(where, table, PROVIDER_KEYS)
                if name not in known and "base_url" not in table:
                    guess = suggestion(name, known)
                    self._problems.append(
                        f"{where}: needs a base_url, as no provider of that name is known{guess}"
                    )
        return good

    # One provider

    def _provider(self, row: Row, table: Mapping[str, Any]) -> ProviderSettings | None:
        if "api_key_env" in table:
            row = replace(row, key_variable=table["api_key_env"], other_key_variables=(), key_required=True)
        keys = self._keys(row)
        version = self._api_version(row)
        base_url = (
            self._found.values.get(row.base_url_variable)
            or table.get("base_url")
            or row.base_url
            or self._of_resource(row, version)
        )
        if base_url is None or (row.key_required and not keys):
            return None
        base_url = self._checked_url(row, base_url)
        if base_url.endswith("/v1"):
            version = ""  # the address is that of the undated API
        delay_s = table.get("commit_delay", self._settings.commit_delay_s)
        clocks = {f"{name}_s": seconds for name, seconds in table.get("timeouts", {}).items()}
        return ProviderSettings(
            name=row.name,
            protocol=row.protocol,
            base_url=base_url,
            key=keys[0] if keys else None,
            spare_keys=keys[1:],
            commit_delay_s=row.commit_delay_s if delay_s is None else delay_s,
            timeouts=replace(self._settings.timeouts, **clocks),
            aliases=row.aliases,
            headers=table.get("headers", ()),
            forward_headers=row.forward_headers,
            models=table.get("models") or row.models,
            models_path=row.models_path,
            model_prefix=row.model_prefix,
            proxy=outbound_proxy(base_url, self._found.values),
            serves_any_name=row.serves_any_name,
            unify_reasoning=table.get("unify_reasoning", False),
            dialects=table.get("dialects") or (("chat",) if version else row.dialects),
            key_header=table.get("key_header", row.key_header).lower(),
            has_openai_fields=row.has_openai_fields,
            stream_usage=table.get("stream_usage", True),
            hoists_system=table.get("hoist_system", True),
            api_version=version,
            options=_options(table),
            continues=continuation(table.get("continues"), row.continues),
            cache_ttl_s=table.get("cache_ttl", row.cache_ttl_s),
            is_free=table.get("free", row.is_free),
            cost_unit=table.get("cost_unit", row.cost_unit),
            max_image_tokens=row.max_image_tokens,
            priced_as=table.get("priced_as") or vendor_at(row.name, base_url),
            metrics_url=self._checked_metrics_url(row, table.get("metrics_url", "")),
            key_weights=self._key_weights(row, table, len(keys)),
            joins_traces=table.get("trace", False),
        )

    def _key_weights(self, row: Row, table: Mapping[str, Any], keys: int) -> tuple[float, ...]:
        weights: tuple[float, ...] = table.get("key_weights", ())
        if weights and len(weights) != keys:
            self._problems.append(
                f"[providers.{row.name}] key_weights: {len(weights)} weights for {keys} keys"
            )
        return weights

    def _keys(self, row: Row) -> tuple[Secret, ...]:
        """The keys of the first of its variables that is set, separated by commas there."""
        for variable in (row.key_variable, *row.other_key_variables):
            if variable and variable in self._found.values:
                try:
                    return Keys().parse(self._found.values[variable])
                except ValueError as exc:
                    self._problems.append(f"{variable}: {exc}")
                    return (Secret("unusable"),)
        return ()

    def _api_version(self, row: Row) -> str:
        """The dated version of the API that is to be used; "" for the undated one."""
        version = self._found.values.get(row.version_variable, "")
        if version in _UNDATED:
            return ""
        if not _API_VERSION.fullmatch(version):
            self._problems.append(f"{row.version_variable}: expected a version such as 2024-10-21")
        return version

    def _of_resource(self, row: Row, version: str) -> str | None:
        """The base URL at the customer's own resource; None where its address is not set."""
        if not (endpoint := self._found.values.get(row.endpoint_variable)):
            return None
        return _PASTED_BASE.sub("", endpoint.rstrip("/")) + ("/openai" if version else "/openai/v1")

    def _checked_url(self, row: Row, url: str) -> str:
        """A base URL without slashes at its end. One that cannot work is a problem."""
        is_variable = row.base_url_variable in self._found.values
        where = row.base_url_variable if is_variable else f"[providers.{row.name}] base_url"
        plain = url.rstrip("/")
        if (fault := url_fault(plain)) is not None:
            self._problems.append(f"{where}: {fault}, got {without_password(url)!r}")
        elif (pasted := ENDPOINTS.search(plain)) is not None:
            self._problems.append(f"{where}: leave out {pasted[0]} at the end; the proxy adds it")
        elif (row.example_url or row.dialects == ("messages",)) and not urllib.parse.urlsplit(plain).path:
            plain += "/v1"  # Anthropic's clients have base URLs without it
            self._found.warnings.append(f"{where} has no path: {plain} is used")
        return plain

    def _checked_metrics_url(self, row: Row, url: str) -> str:
        if url and (fault := url_fault(url)) is not None:
            where = f"[providers.{row.name}] metrics_url"
            self._problems.append(f"{where}: {fault}, got {without_password(url)!r}")
            return ""
        return url


def _options(values: Mapping[str, Any]) -> RequestOptions:
    """The options in the good values of a table."""
    return RequestOptions(
        default_params=values.get("default_params", {}),
        set_params=values.get("set_params", {}),
        remove_params=values.get("remove_params", ()),
        is_strict=values.get("strict", False),
        thinking=values.get("thinking"),
        sampling=values.get("sampling"),
    )


def _saving(values: Mapping[str, Any]) -> StreamSaving:
    """What the good values of a model's table say about its streams."""
    return StreamSaving(
        values.get("hold_back"),
        values.get("on_cut", "error"),
        values.get("skip_malformed", False),
        values.get("collect", False),
    )


def _custom_row(name: str, table: Mapping[str, Any]) -> Row:
    return Row(
        name=name, base_url=None, key_variable=table.get("api_key_env"), key_required="api_key_env" in table
    )


def _turned_on_by(row: Row) -> str:
    if row.endpoint_variable:
        return row.endpoint_variable
    return row.base_url_variable if not row.key_required else (row.key_variable or row.base_url_variable)
