"""What the proxy is told from outside, as one frozen object. `settings_loader` reads it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from typing_extensions import override

PREFIX = "SANIC_PROXY_"

Switch = Literal["auto", "on", "off"]
Protocol = Literal["openai", "straico", "echo"]

HEARTBEATS: Mapping[str, str] = {
    "": "",
    "zwsp": "\u200b",
    "zwnj": "\u200c",
    "wj": "\u2060",
    "comment": "",
}
MIN_SECRET_CHARS = 8
STRAICO_BASE_URL = "https://api.straico.com"


class Secret:
    """A value that is only read on purpose: it cannot be printed, compared by guess, pickled or dumped."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the header or comparison it is needed in."""
        return self._value

    @override
    def __repr__(self) -> str:
        return "Secret(****)"

    @override
    def __str__(self) -> str:
        return "****"

    @override
    def __format__(self, spec: str) -> str:
        return format("****", spec)

    @override
    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be copied, pickled or dumped")


class SettingsError(Exception):
    """The settings are wrong; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Independent clocks, in seconds. The proxy's own heartbeats reset none of them.

    `idle_s` is silence; `stall_s` is a stream without progress, whatever else it brings.
    """

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float
    stall_s: float = 120.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What is kept of connections that nobody uses; those in use are not limited."""

    idle_per_host: int
    idle_timeout_s: float
    tcp_keepalive_s: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How long a stop may take, in seconds: still taking new requests, then finishing those under way."""

    lame_duck_s: float
    drain_s: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker has under way at most; 0: without limit."""

    concurrent: int
    bytes_in_flight: int


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider that is on: where it is, and what it is told."""

    name: str
    protocol: Protocol
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


@dataclass(frozen=True, slots=True)
class ProviderOff:
    """A provider that is known and not configured, and the variable that turns it on."""

    name: str
    variable: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model name of the operator's own, and the (provider, model) pairs that it stands for, in order."""

    name: str
    targets: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the proxy is told from outside, checked."""

    host: str
    port: int
    workers: int
    router: Switch
    echo: Switch
    heartbeat: str
    heartbeat_interval_s: float
    pool: PoolLimits
    client_timeout_s: float
    max_body_bytes: int
    max_upload_bytes: int
    api_keys: tuple[Secret, ...]
    allow_open: bool
    cors_origins: frozenset[str]
    allowed_hosts: frozenset[str]
    log_level: str
    log_format: str
    access_log: bool
    ssl_cert_file: str | None
    timeouts: Timeouts
    ending: Ending
    capacity: Capacity
    providers: tuple[ProviderSettings, ...]
    providers_off: tuple[ProviderOff, ...]
    models: tuple[ModelSettings, ...] = ()
    attempts_per_target: int = 2
    attempts: int = 4
    breaker: bool = True
    warnings: tuple[str, ...] = field(default=())

    @property
    def router_is_on(self) -> bool:
        """Straico's own ids look like `openai/gpt-4o`, so `auto` steps aside for its key."""
        if self.router == "auto":
            return not any(provider.protocol == "straico" for provider in self.providers)
        return self.router == "on"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text of ours may hold. Shorter values are no keys, and stand in any text."""
        keys = [key for provider in self.providers for key in (provider.key, *provider.spare_keys) if key]
        headers = [value for provider in self.providers for _, value in provider.headers]
        known = {*headers, *(key.reveal() for key in (*keys, *self.api_keys))}
        return tuple(secret for secret in known if len(secret) >= MIN_SECRET_CHARS)

    @property
    def is_open(self) -> bool:
        return not self.api_keys


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Variable:
    """One documented setting; the README's table is checked against these."""

    name: str
    default: str
    meaning: str

    def row(self) -> str:
        """Its row in the README's table."""
        return f"| `{PREFIX}{self.name}` | {self.default or 'empty'} | {self.meaning} |"


VARIABLES: tuple[Variable, ...] = (
    Variable("HOST", "127.0.0.1", "address for the `serve` command"),
    Variable("PORT", "8000", "port for the `serve` command"),
    Variable("WORKERS", "cores", "worker processes for the `serve` command"),
    Variable("ROUTER", "auto", "`on`, `off`, `auto`: off while `STRAICO_API_KEY` is set, else on"),
    Variable(
        "ECHO",
        "auto",
        "`on`, `off`, `auto`: the embedded provider, on only while there is no other",
    ),
    Variable(
        "HEARTBEAT_CHAR",
        "",
        "what Straico's heartbeats carry: empty, `zwsp`, `zwnj`, `wj` or `comment`",
    ),
    Variable("HEARTBEAT_INTERVAL", "3", "seconds between heartbeats"),
    Variable(
        "STREAM_COMMIT_DELAY",
        "10; Straico 3",
        "seconds a stream's status line waits for the upstream; 0: at once",
    ),
    Variable("TIMEOUT_CONNECT", "5", "seconds for a connection to a provider"),
    Variable("TIMEOUT_FIRST_BYTE", "300", "seconds from the request to the provider's status"),
    Variable("TIMEOUT_IDLE", "120", "seconds of silence inside an answer"),
    Variable("TIMEOUT_TOTAL", "600", "seconds for the whole request"),
    Variable(
        "TIMEOUT_STALL",
        "120",
        "seconds of a stream without progress: comments and empty deltas are none",
    ),
    Variable("TIMEOUT_CLIENT", "60", "seconds a client may take nothing of its answer"),
    Variable("ATTEMPTS", "4", "how often one request may be sent, all targets together"),
    Variable("ATTEMPTS_PER_TARGET", "2", "how often to one target; 1: never again"),
    Variable("BREAKER", "on", "leave a target alone for a moment after repeated failures"),
    Variable(
        "POOL_IDLE_PER_HOST",
        "512",
        "idle connections kept per provider and worker; more are closed, oldest first",
    ),
    Variable("POOL_IDLE_TIMEOUT", "15", "seconds an idle connection is kept"),
    Variable("TCP_KEEPALIVE", "90", "seconds until TCP probes a silent connection"),
    Variable("MAX_BODY_BYTES", "33554432", "larger requests get 413"),
    Variable(
        "MAX_UPLOAD_BYTES", "536870912", "the same for forms with files, which are sent on as they come"
    ),
    Variable(
        "API_KEYS",
        "",
        "comma-separated keys that clients must present; empty: open to all who can connect",
    ),
    Variable("ALLOW_OPEN", "0", "`1` lets an open proxy listen beyond loopback"),
    Variable("CORS_ORIGINS", "", "comma-separated origins whose pages may call; `*` for all"),
    Variable(
        "ALLOWED_HOSTS",
        "",
        "comma-separated host names accepted besides loopback while there are no keys",
    ),
    Variable("LOG_LEVEL", "info", "`debug`, `info`, `warning`, `error`"),
    Variable("LOG_FORMAT", "text", "`text` or `json`"),
    Variable("ACCESS_LOG", "on", "one line per finished request"),
    Variable("MAX_CONCURRENT", "2000", "requests under way per worker; more get 503; 0: no limit"),
    Variable(
        "MAX_BYTES_IN_FLIGHT",
        "1073741824",
        "bytes of their bodies per worker; more get 503; 0: no limit",
    ),
    Variable("LAME_DUCK_SECONDS", "5", "seconds after SIGTERM in which new requests are still served"),
    Variable("DRAIN_SECONDS", "300", "seconds that requests under way then have to finish"),
    Variable("CONFIG", "", "path of a TOML file"),
)


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
        f"{PREFIX}API_KEYS is empty and {host} is not loopback: whoever reaches it spends your providers' "
        f"credit. Set keys, listen on 127.0.0.1, or accept it with {PREFIX}ALLOW_OPEN=1"
    )
