"""The metrics by name: what each counts, in which unit, and with which labels. Declarations only.

Values are kept as integers: microseconds for seconds, nano-dollars for dollars. `scale` is by how much they
are divided when they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

MICRO = 1_000_000
NANO = 1_000_000_000

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# The proxy's own time, and that of an event loop.
SHORT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PER_SECOND = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` has no suffix `_total`; a histogram has `bounds`, the upper ones of its buckets."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    scale: int = 1


_MODEL = ("model", "target")

REQUESTS = Family(
    "sanic_proxy_requests",
    "counter",
    "Requests that have ended, by outcome: ok, client_left, cancelled, or the code of the error",
    ("dialect", *_MODEL, "outcome"),
)
DURATION = Family(
    "sanic_proxy_request_duration_seconds",
    "histogram",
    "Time from a request's head to the end of its answer",
    _MODEL,
    SECONDS,
    MICRO,
)
FIRST_CONTENT = Family(
    "sanic_proxy_time_to_first_content_seconds",
    "histogram",
    "Time from a streamed request's head to the first content of its answer; heartbeats are no content",
    _MODEL,
    SECONDS,
    MICRO,
)
LONGEST_GAP = Family(
    "sanic_proxy_longest_gap_seconds",
    "histogram",
    "The longest time between two frames of a stream",
    _MODEL,
    SECONDS,
    MICRO,
)
TOKEN_TIME = Family(
    "sanic_proxy_time_per_output_token_seconds",
    "histogram",
    "Time per token of a stream, from its first content to its end",
    _MODEL,
    TOKEN_SECONDS,
    MICRO,
)
TOKEN_RATE = Family(
    "sanic_proxy_output_tokens_per_second",
    "histogram",
    "Tokens per second of a stream, from its first content to its end",
    _MODEL,
    PER_SECOND,
    MICRO,
)
OVERHEAD = Family(
    "sanic_proxy_overhead_seconds",
    "histogram",
    "The proxy's own time up to the first content: neither the provider's nor waits between attempts",
    ("dialect",),
    SHORT_SECONDS,
    MICRO,
)
TOKENS = Family(
    "sanic_proxy_tokens",
    "counter",
    "Tokens: input (cached ones included), output (reasoning included), and of these cached and reasoning",
    (*_MODEL, "type"),
)
SPEND = Family("sanic_proxy_spend_dollars", "counter", "Spend in US dollars", _MODEL, scale=NANO)
UNKNOWN_PRICE = Family(
    "sanic_proxy_requests_without_price", "counter", "Requests whose price is not known", _MODEL
)
CLIENT_REQUESTS = Family(
    "sanic_proxy_client_requests", "counter", "Requests of a client, by outcome", ("client", "outcome")
)
CLIENT_TOKENS = Family(
    "sanic_proxy_client_tokens", "counter", "Tokens of a client: input and output", ("client", "type")
)
CLIENT_SPEND = Family(
    "sanic_proxy_client_spend_dollars", "counter", "Spend of a client in US dollars", ("client",), scale=NANO
)
ATTEMPTS = Family(
    "sanic_proxy_attempts",
    "counter",
    "Attempts at a target, by outcome: ok, the code of the error, or why it was passed over",
    ("target", "outcome"),
)
ATTEMPT_DURATION = Family(
    "sanic_proxy_attempt_duration_seconds",
    "histogram",
    "Time of an attempt up to the first content of a stream, or to the end of a whole answer",
    ("target",),
    SECONDS,
    MICRO,
)
SAVED_STREAMS = Family(
    "sanic_proxy_saved_streams", "counter", "Attempts for the rest of a stream that broke off", ("target",)
)
HEDGES = Family(
    "sanic_proxy_hedges", "counter", "Attempts that lost against a second one, or were that one", ("target",)
)
WAITED = Family(
    "sanic_proxy_waited_seconds",
    "counter",
    "Time that the proxy waited between attempts and for limits",
    _MODEL,
    scale=MICRO,
)
DROPPED_FRAMES = Family(
    "sanic_proxy_dropped_frames", "counter", "Frames of providers that were not passed on", ("target",)
)
LOOP_LAG = Family(
    "sanic_proxy_event_loop_lag_seconds",
    "histogram",
    "How late a worker's timer was, measured once a second",
    ("worker",),
    SHORT_SECONDS,
    MICRO,
)
LOST_SERIES = Family(
    "sanic_proxy_lost_observations", "counter", "Observations that found no room in the shared memory"
)
DROPPED_TRACES = Family(
    "sanic_proxy_dropped_traces", "counter", "Sampled requests whose spans could not be sent"
)
IN_FLIGHT = Family("sanic_proxy_requests_in_flight", "gauge", "Requests in flight, of the last second")
CONNECTIONS = Family("sanic_proxy_connections", "gauge", "Connections of clients, of the last second")
BODY_BYTES = Family("sanic_proxy_body_bytes", "gauge", "Bytes of requests in memory, of the last second")
OPEN_CIRCUITS = Family(
    "sanic_proxy_open_circuits", "gauge", "Workers in which the circuit of a target is open", ("target",)
)
WORKERS = Family("sanic_proxy_workers", "gauge", "Workers that serve")

FAMILIES: tuple[Family, ...] = (
    REQUESTS,
    DURATION,
    FIRST_CONTENT,
    LONGEST_GAP,
    TOKEN_TIME,
    TOKEN_RATE,
    OVERHEAD,
    TOKENS,
    SPEND,
    UNKNOWN_PRICE,
    CLIENT_REQUESTS,
    CLIENT_TOKENS,
    CLIENT_SPEND,
    ATTEMPTS,
    ATTEMPT_DURATION,
    SAVED_STREAMS,
    HEDGES,
    WAITED,
    DROPPED_FRAMES,
    LOOP_LAG,
    LOST_SERIES,
    DROPPED_TRACES,
    IN_FLIGHT,
    CONNECTIONS,
    BODY_BYTES,
    OPEN_CIRCUITS,
    WORKERS,
)


@dataclass(frozen=True, slots=True)
class Alias:
    """A family under another name, made of the same numbers.

    `labels` maps the other names of labels to ours, or to a fixed text that begins with `=`. Only series
    whose labels have one of the values in `among`, and none of those in `unlike`, are in it.
    """

    name: str
    family: Family
    labels: Mapping[str, str] = field(default_factory=dict)
    among: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unlike: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# OpenTelemetry's GenAI conventions, as Prometheus writes their names. `provider` is the target's first part.
_GEN_AI = {
    "gen_ai_operation_name": "=chat",
    "gen_ai_provider_name": "provider",
    "gen_ai_request_model": "model",
    "gen_ai_response_model": "target_model",
}
_SERVER = (
    Alias("gen_ai_server_request_duration_seconds", DURATION, _GEN_AI),
    Alias("gen_ai_server_time_to_first_token_seconds", FIRST_CONTENT, _GEN_AI),
    Alias("gen_ai_server_time_per_output_token_seconds", TOKEN_TIME, _GEN_AI),
)
_CLIENT = {name: label for name, label in _GEN_AI.items() if label != "model"}
_INPUT, _OUTPUT = {"type": ("input",)}, {"type": ("output",)}
_OK = {"outcome": ("ok",)}
GEN_AI_OLD = (
    *_SERVER,
    Alias("gen_ai_client_operation_duration_seconds", ATTEMPT_DURATION, _CLIENT),
    Alias(
        "gen_ai_client_token_usage",
        TOKENS,
        {**_GEN_AI, "gen_ai_token_type": "type"},
        among={"type": ("input", "output")},
    ),
)
GEN_AI_NEW = (
    *_SERVER,
    Alias("gen_ai_client_inference_duration_seconds", ATTEMPT_DURATION, _CLIENT),
    Alias("gen_ai_client_inference_usage_input_tokens", TOKENS, _GEN_AI, _INPUT),
    Alias("gen_ai_client_inference_usage_output_tokens", TOKENS, _GEN_AI, _OUTPUT),
    Alias("gen_ai_client_inference_usage_cache_read_input_tokens", TOKENS, _GEN_AI, {"type": ("cached",)}),
    Alias("gen_ai_client_inference_usage_reasoning_output_tokens", TOKENS, _GEN_AI, {"type": ("reasoning",)}),
)
# The names that dashboards for LiteLLM query most.
_LITELLM = {"requested_model": "model", "model": "target_model", "api_provider": "provider"}
_DEPLOYMENT = {"litellm_model_name": "target_model", "api_provider": "provider"}
_BY_KEY = {"api_key_alias": "client"}
LITELLM = (
    Alias("litellm_proxy_total_requests_metric", CLIENT_REQUESTS, _BY_KEY),
    Alias("litellm_proxy_failed_requests_metric", CLIENT_REQUESTS, _BY_KEY, unlike=_OK),
    Alias("litellm_request_total_latency_metric", DURATION, _LITELLM),
    Alias("litellm_llm_api_latency_metric", ATTEMPT_DURATION, _DEPLOYMENT),
    Alias("litellm_llm_api_time_to_first_token_metric", FIRST_CONTENT, _LITELLM),
    Alias("litellm_overhead_latency_metric", OVERHEAD),
    Alias("litellm_spend_metric", SPEND, _LITELLM),
    Alias("litellm_input_tokens_metric", TOKENS, _LITELLM, _INPUT),
    Alias("litellm_output_tokens_metric", TOKENS, _LITELLM, _OUTPUT),
    Alias("litellm_deployment_success_responses", ATTEMPTS, _DEPLOYMENT, _OK),
    Alias("litellm_deployment_failure_responses", ATTEMPTS, _DEPLOYMENT, unlike=_OK),
    Alias("litellm_in_flight_requests", IN_FLIGHT),
)
_ALIASES: Mapping[str, tuple[Alias, ...]] = {
    "genai-old": GEN_AI_OLD,
    "genai-new": GEN_AI_NEW,
    "litellm": LITELLM,
}


def aliases_of(names: Iterable[str]) -> tuple[Alias, ...]:
    """The further names of metrics by the names of their sets, each once."""
    found = [alias for name in names for alias in _ALIASES[name]]
    return tuple({alias.name: alias for alias in found}.values())
