"""The settings as one frozen object. Each field that is read from outside declares its variable here."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sanic_proxy.config.capture import CaptureSettings, ReplaySettings
from sanic_proxy.config.catalog import CATCH_ALL, ROWS, Row
from sanic_proxy.config.hedging import HedgeSettings
from sanic_proxy.config.rules import NO_LIMITS, ClientRules, ScopeLimits, TeamRules
from sanic_proxy.config.saving import NO_SAVING, Continuation, StreamSaving
from sanic_proxy.config.secret import MIN_SECRET_CHARS, Secret
from sanic_proxy.config.targets import Affinity, Strategy, Targets
from sanic_proxy.config.tracing import TraceSettings
from sanic_proxy.config.urls import passwords_in
from sanic_proxy.config.variables import (
    PREFIX,
    Address,
    Choice,
    Choices,
    Duration,
    Flag,
    HostList,
    Integer,
    Keys,
    OneKey,
    OriginList,
    Origins,
    Size,
    StoreAddress,
    Text,
    TextList,
    Variable,
    WebAddress,
    setting,
    variables_of,
)

Switch = Literal["auto", "on", "off"]
Thinking = Literal["adaptive", "budget"]
ResponseStoreKind = Literal["memory", "sqlite", "off"]
OnStoreDown = Literal["refuse", "allow"]

HEARTBEATS: Mapping[str, str] = {
    "": "",
    "zwsp": "\u200b",
    "zwnj": "\u200c",
    "wj": "\u2060",
    "comment": "",
}
# A worker shows once a second that its event loop turns, and a busy one may be late.
MIN_HANG_TIMEOUT_S = 5.0
_SWITCH = Choice(("auto", "on", "off"))


class SettingsError(Exception):
    """The settings are wrong; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Independent clocks of one request, in seconds. The proxy's own heartbeats reset none of them.

    `idle_s`: no bytes; `stall_s`: bytes (comments, empty frames), but no progress of the stream.
    """

    connect_s: float = setting("TIMEOUT_CONNECT", Duration(), 5.0, "time to connect to a provider")
    first_byte_s: float = setting(
        "TIMEOUT_FIRST_BYTE", Duration(), 300.0, "time from the request to the first content of its answer"
    )
    idle_s: float = setting(
        "TIMEOUT_IDLE", Duration(), 120.0, "longest silence inside an answer, after its first content"
    )
    total_s: float = setting(
        "TIMEOUT_TOTAL", Duration(), 600.0, "time for the whole request, all attempts together"
    )
    stall_s: float = setting(
        "TIMEOUT_STALL",
        Duration(),
        120.0,
        "longest time a stream may bring nothing but comments and empty deltas",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of the idle connections that are kept; those in use are not limited."""

    idle_per_host: int = setting(
        "POOL_IDLE_PER_HOST",
        Integer(0, 100_000),
        512,
        "idle connections kept per provider and worker; further ones are closed, oldest first",
    )
    idle_timeout_s: float = setting("POOL_IDLE_TIMEOUT", Duration(), 15.0, "time an idle connection is kept")
    tcp_keepalive_s: int = setting(
        "TCP_KEEPALIVE", Integer(1, 32767), 90, "seconds until TCP probes a silent connection"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How long a stop may take, in seconds: still taking new requests, then finishing those in flight."""

    lame_duck_s: float = setting(
        "LAME_DUCK_SECONDS",
        Duration(zero=True),
        5.0,
        "time after SIGTERM in which new requests are still served",
    )
    drain_s: float = setting(
        "DRAIN_SECONDS", Duration(zero=True), 300.0, "time that requests in flight then have to finish"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The most that a worker has in flight; 0: no limit."""

    concurrent: int = setting(
        "MAX_CONCURRENT",
        Integer(0, 1_000_000),
        2000,
        "requests in flight per worker; further ones get 503; 0: no limit",
    )
    bytes_in_flight: int = setting(
        "MAX_BYTES_IN_FLIGHT",
        Size(0, 2**50),
        2**30,
        "bytes of their bodies per worker; further ones get 503; 0: no limit",
    )


def _shown_delays() -> str:
    """The default commit delay, and those of the rows with one of their own."""
    default = Row("", None, None).commit_delay_s
    own = [f"{row.name} {row.commit_delay_s:g}" for row in ROWS if row.commit_delay_s != default]
    return "; ".join([f"{default:g}", *own])


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What the proxy changes in the requests to one target, in the names of the target's own API.

    `default_params` are set where the request has none of that name, `set_params` always; `remove_params` are
    removed. `is_strict`: a request of which a translation would lose something is rejected. `thinking` and
    `sampling` describe a model of the Messages API: how it is made to think, and whether it takes
    `temperature`, `top_p` and `top_k`; None: as the current models of that API.
    """

    default_params: Mapping[str, object] = field(default_factory=dict)
    set_params: Mapping[str, object] = field(default_factory=dict)
    remove_params: tuple[str, ...] = ()
    is_strict: bool = False
    thinking: Thinking | None = None
    sampling: bool | None = None

    def merged(self, model: RequestOptions) -> RequestOptions:
        """These, of a provider, with those of a model, which win."""
        if self == NO_OPTIONS:
            return NO_OPTIONS if model == NO_OPTIONS else model  # to be recognised by its identity
        if model == NO_OPTIONS:
            return self
        return RequestOptions(
            default_params={**self.default_params, **model.default_params},
            set_params={**self.set_params, **model.set_params},
            remove_params=(*self.remove_params, *model.remove_params),
            is_strict=self.is_strict or model.is_strict,
            thinking=model.thinking or self.thinking,
            sampling=self.sampling if model.sampling is None else model.sampling,
        )

    @property
    def changes_requests(self) -> bool:
        """Whether any request is changed."""
        return bool(self.default_params or self.set_params or self.remove_params)


NO_OPTIONS = RequestOptions()


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider that is on. `protocol` names the class that speaks to it; `dialects` as in the catalog.

    `stream_usage`: a translated stream requests its usage. `hoists_system`: a translated request has all
    system messages in the first one. `continues` is how it is asked to continue an answer; empty: it cannot.
    `is_free`: its models cost nothing. `cost_unit` is the price, in US dollars, of the unit in which it
    reports what a request costs; None: its reports are not used. `priced_as` is the catalog's name of the
    vendor whose prices hold; "": not known. `max_image_tokens` as in the catalog.
    `api_version`: models are deployments in the path, and each request has
    the parameter `api-version` (Azure's dated versions); "": they are not. `cache_ttl_s` as in the catalog.
    `metrics_url` is where a self-hosted engine reports its queue; "": nowhere.
    `key_weights` are the shares of the keys; empty: they are tried in their order, or evenly.
    `joins_traces`: it gets `traceparent` and `tracestate`.
    """

    name: str
    protocol: str
    base_url: str
    key: Secret | None
    commit_delay_s: float
    timeouts: Timeouts
    spare_keys: tuple[Secret, ...] = ()
    aliases: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # one may be a key
    forward_headers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    models_path: str | None = "/models"
    model_prefix: str = ""
    proxy: Secret | None = None
    serves_any_name: bool = False
    unify_reasoning: bool = False
    dialects: tuple[str, ...] = ("chat",)
    key_header: str = "authorization"
    has_openai_fields: bool = False
    stream_usage: bool = True
    hoists_system: bool = True
    api_version: str = ""
    options: RequestOptions = NO_OPTIONS
    continues: Continuation = ""
    cache_ttl_s: float = 300.0
    is_free: bool = False
    cost_unit: float | None = None
    priced_as: str = ""
    max_image_tokens: int = 48_169
    metrics_url: str = ""
    key_weights: tuple[float, ...] = ()
    joins_traces: bool = False

    @property
    def keys(self) -> tuple[Secret, ...]:
        """All its keys, in the order in which they are tried."""
        return (self.key, *self.spare_keys) if self.key is not None else ()


@dataclass(frozen=True, slots=True)
class ProviderOff:
    """A provider that is known and not configured, and the variable that turns it on."""

    name: str
    variable: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model name of the operator's own, and the targets that it stands for.

    A `*` in the name stands for any text, and in a target's model for the text that it stood for.
    `first_content_s` is the limit for a stream's first content; 0: no limit; None: the proxy's own.
    `hidden`: the name can be used and is not listed. `hedge`: slow requests get a second attempt; None: no.
    `max_wait_s` is how long a request may wait for limits; 0: not at all; None: as the proxy says.
    `capture` is the share of requests whose content is captured.
    """

    name: str
    targets: Targets
    first_content_s: float | None = None
    options: RequestOptions = NO_OPTIONS
    strategy: Strategy = "order"
    hidden: bool = False
    saving: StreamSaving = NO_SAVING
    affinity: Affinity = "auto"
    limits: ScopeLimits = NO_LIMITS
    hedge: HedgeSettings | None = None
    max_wait_s: float | None = None
    capture: float = 0.0

    @property
    def has_affinity(self) -> bool:
        """Whether sessions may have targets of their own."""
        return self.strategy not in {"order", "prefix"} and self.affinity != "off"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One client of the settings: its rules, and the SHA-256 digests of its keys in hexadecimal.

    `keys` are the keys themselves, as far as the settings have them.
    """

    rules: ClientRules
    digests: tuple[str, ...]
    keys: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked."""

    host: str = setting("HOST", Text("an address to listen on"), "127.0.0.1", "address to listen on")
    port: int = setting("PORT", Integer(1, 65535), 8000, "port to listen on")
    workers: int = setting("WORKERS", Integer(0, 1024), 0, "worker processes; 0: one per core", shown="0")
    router: Switch = setting(
        "ROUTER",
        _SWITCH,
        "auto",
        f"`on`, `off`, `auto`: off while `{CATCH_ALL.key_variable}` is set, else on",
    )
    embedded: Switch = setting(
        "ECHO", _SWITCH, "auto", "`on`, `off`, `auto`: the embedded provider, on only while there is no other"
    )
    heartbeat: str = setting(
        "HEARTBEAT_CHAR",
        Choice(tuple(HEARTBEATS)),
        "",
        "content of an emulated stream's heartbeats: empty, `zwsp`, `zwnj`, `wj` or `comment`",
    )
    heartbeat_interval_s: float = setting("HEARTBEAT_INTERVAL", Duration(), 3.0, "time between heartbeats")
    commit_delay_s: float | None = setting(
        "STREAM_COMMIT_DELAY",
        Duration(zero=True),
        None,
        "time a stream's status line waits for the upstream; 0: sent at once",
        shown=_shown_delays(),
    )
    timeouts: Timeouts = field(default_factory=Timeouts)
    first_content_s: float = setting(
        "TIMEOUT_FIRST_CONTENT",
        Duration(zero=True),
        30.0,
        "time to a stream's first content; it then moves on while another target is left; 0: no limit",
    )
    client_timeout_s: float = setting(
        "TIMEOUT_CLIENT", Duration(), 60.0, "longest time a client may read nothing of its answer"
    )
    max_wait_s: float = setting(
        "MAX_WAIT",
        Duration(zero=True),
        10.0,
        "how long a request may wait for the rate limits of its targets before it gets a 429; 0: not at all",
    )
    attempts: int = setting(
        "ATTEMPTS", Integer(1, 20), 4, "how often one request may be sent, all targets together"
    )
    attempts_per_target: int = setting(
        "ATTEMPTS_PER_TARGET", Integer(1, 10), 2, "how often to one target; 1: no retry"
    )
    breaker: bool = setting(
        "BREAKER", Flag(), True, "open circuits after repeated failures and remember rate limits"
    )
    pool: PoolLimits = field(default_factory=PoolLimits)
    max_body_bytes: int = setting("MAX_BODY_BYTES", Size(1024, 2**40), 33_554_432, "larger requests get 413")
    max_upload_bytes: int = setting(
        "MAX_UPLOAD_BYTES",
        Size(1024, 2**40),
        536_870_912,
        "the same for forms with files, which are streamed",
    )
    api_keys: tuple[Secret, ...] = setting(
        "API_KEYS",
        Keys(),
        (),
        "comma-separated keys that clients must present; empty: open to all who can connect",
    )
    require_keys: bool = setting(
        "REQUIRE_KEYS",
        Flag(),
        False,
        "`on`: clients need a key also while the settings have none; keys can be made at run time",
    )
    admin_key: Secret | None = setting(
        "ADMIN_KEY", OneKey(), None, "key for the routes below `/admin` and `/key`; empty: no such routes"
    )
    admin_address: tuple[str, int] | None = setting(
        "ADMIN_ADDRESS",
        Address(),
        None,
        "address and port where those routes are served, with `/health`, instead of on the main port",
    )
    metrics_address: tuple[str, int] | None = setting(
        "METRICS_ADDRESS",
        Address(),
        None,
        "address and port where `/metrics` is served without a key, instead of beside the admin routes",
    )
    metrics_names: tuple[str, ...] = setting(
        "METRICS_NAMES",
        Choices(("genai-old", "genai-new", "litellm")),
        (),
        "comma-separated sets of further names for the metrics: `genai-old`, `genai-new` (OpenTelemetry's "
        "GenAI conventions), `litellm`",
    )
    tracing: TraceSettings = field(default_factory=TraceSettings)
    allow_open: bool = setting(
        "ALLOW_OPEN", Flag(), False, "`on` lets a proxy without keys listen beyond loopback"
    )
    cors_origins: Origins = setting(
        "CORS_ORIGINS",
        OriginList(),
        Origins(),
        "comma-separated origins whose pages may call: `https://*.example.com`, `http://localhost:*`, `*`",
    )
    allowed_hosts: frozenset[str] = setting(
        "ALLOWED_HOSTS",
        HostList(),
        frozenset(),
        "comma-separated host names accepted besides loopback while there are no keys",
    )
    responses_done: bool = setting(
        "RESPONSES_DONE",
        Flag(),
        False,
        "`on`: translated streams of the Responses API end with `data: [DONE]`, as Open Responses demands",
    )
    response_store: ResponseStoreKind = setting(
        "RESPONSE_STORE",
        Choice(("memory", "sqlite", "off")),
        "memory",
        "where answers of the Responses API are stored: `memory` (256 MiB, 1 h), `sqlite` (in the state "
        "directory; 1 GiB, 30 days), `off`",
    )
    unowned_files: tuple[str, ...] = setting(
        "UNOWNED_FILES",
        TextList(),
        (),
        "comma-separated names of the clients that may use files and batches whose creator is not known; "
        "nobody by default, if there are several clients",
    )
    background_responses: int = setting(
        "BACKGROUND_RESPONSES",
        Integer(0, 10_000),
        64,
        "background responses that one worker runs at once; 0: none",
    )
    background_timeout_s: float = setting(
        "TIMEOUT_BACKGROUND", Duration(), 3600.0, "time for one background response"
    )
    websocket_idle_s: float = setting(
        "TIMEOUT_WEBSOCKET", Duration(), 300.0, "time after which a websocket without a request is closed"
    )
    ledger: bool = setting(
        "LEDGER",
        Flag(),
        False,
        "`on`: keep a row for each attempt in the state store, also where nothing is limited",
    )
    ledger_days: int = setting(
        "LEDGER_DAYS",
        Integer(1, 3650),
        90,
        "days that these rows are kept for; sums per day stay",
    )
    on_store_down: OnStoreDown = setting(
        "ON_STORE_DOWN",
        Choice(("refuse", "allow")),
        "refuse",
        "requests for which a budget cannot be asked, as the state store is down: `refuse` (503) or `allow`",
    )
    budget_status: int = setting(
        "BUDGET_STATUS", Integer(400, 499), 429, "status of the answer to a client whose budget is used up"
    )
    budget_webhook: Secret | None = setting(
        "BUDGET_WEBHOOK",
        WebAddress(),
        None,
        "URL that gets a JSON object when a budget has reached one of its `soft` percentages",
    )
    log_level: str = setting(
        "LOG_LEVEL",
        Choice(("debug", "info", "warning", "error")),
        "info",
        "`debug`, `info`, `warning`, `error`",
    )
    log_format: str = setting("LOG_FORMAT", Choice(("text", "json")), "text", "`text` or `json`")
    access_log: bool = setting("ACCESS_LOG", Flag(), True, "one line per finished request")
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    capacity: Capacity = field(default_factory=Capacity)
    ending: Ending = field(default_factory=Ending)
    hang_timeout_s: float = setting(
        "HANG_TIMEOUT",
        Duration(zero=True),
        30.0,
        "time after which a worker whose event loop hangs is killed and replaced; at least 5; 0: never",
    )
    state_dir: str = setting(
        "STATE_DIR",
        Text("a directory"),
        "",
        "directory of the workers' shared state; default: `$STATE_DIRECTORY`, else below `$XDG_STATE_HOME`",
    )
    store: Secret | None = setting(
        "STORE",
        StoreAddress(),
        None,
        "where shared state is kept: `sqlite` (in the state directory, for one machine), or "
        "`postgresql://user:password@host/database` for many machines",
        shown="sqlite",
    )
    config: str = setting(
        "CONFIG",
        Text("the path of a file"),
        "",
        "path of a TOML file, or of LiteLLM's file if its name ends in `.yaml` or `.yml`",
    )
    ssl_cert_file: str | None = None
    providers: tuple[ProviderSettings, ...] = ()
    providers_off: tuple[ProviderOff, ...] = ()
    models: tuple[ModelSettings, ...] = ()
    clients: tuple[ClientSettings, ...] = ()
    teams: tuple[TeamRules, ...] = ()
    limits: ScopeLimits = NO_LIMITS
    warnings: tuple[str, ...] = ()

    @property
    def router_is_on(self) -> bool:
        """Whether the model's prefix picks the provider.

        `auto` steps aside for a provider whose own model ids look like prefixed ones.
        """
        if self.router == "auto":
            return not any(provider.serves_any_name for provider in self.providers)
        return self.router == "on"

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that no text of the proxy's may hold. Shorter values are no keys, and occur in any text."""
        keys = [key for provider in self.providers for key in provider.keys]
        headers = [value for provider in self.providers for _, value in provider.headers]
        headers += [value.reveal() for _, value in self.tracing.headers]
        if self.tracing.proxy is not None:
            headers += passwords_in(self.tracing.proxy.reveal())
        admin = () if self.admin_key is None else (self.admin_key,)
        clients = [key for client in self.clients for key in client.keys]
        known = {*headers, *(key.reveal() for key in (*keys, *self.api_keys, *clients, *admin))}
        if self.store is not None:
            known |= {self.store.reveal(), *passwords_in(self.store.reveal())}
        return tuple(secret for secret in known if len(secret) >= MIN_SECRET_CHARS)

    @property
    def has_metrics(self) -> bool:
        """Whether metrics can be read, and so have to be kept."""
        return self.admin_key is not None or self.metrics_address is not None

    @property
    def worker_count(self) -> int:
        """The number of worker processes to start."""
        return self.workers or default_workers()

    @property
    def is_open(self) -> bool:
        """Whether clients need no key."""
        return not (self.api_keys or self.clients or self.require_keys)


VARIABLES: tuple[Variable, ...] = tuple(variables_of(Settings))


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without port) can only mean this machine."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def binding_problem(settings: Settings, host: str) -> str | None:
    """Why the proxy must not listen on `host` with these settings; None if it may."""
    if not settings.is_open or settings.allow_open or is_loopback(host):
        return None
    return (
        f"{PREFIX}API_KEYS is empty and {host} is not loopback: anyone who can reach it spends your "
        f"providers' credit. Set keys, listen on 127.0.0.1, or accept it with {PREFIX}ALLOW_OPEN=on"
    )
