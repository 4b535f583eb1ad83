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
# As OpenTelemetry's conventions have them.
TOKEN_COUNTS = tuple(float(4**power) for power in range(14))


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric. `name` has no suffix `_total`; a histogram has `bounds`, the upper ones of its buckets.

    A worker has at most `max_series` of it, so that one with many labels leaves room for the others.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    scale: int = 1
    max_series: int = 1000


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
REQUEST_TOKENS = Family(
    "sanic_proxy_request_tokens",
    "histogram",
    "Tokens of a request: input (cached ones included) and output (reasoning included)",
    (*_MODEL, "type"),
    TOKEN_COUNTS,
)
SPEND = Family(
    "sanic_proxy_spend_dollars",
    "counter",
    "Spend in US dollars, as booked; what nobody knows the usage of is estimated",
    ("client", *_MODEL),
    scale=NANO,
    max_series=400,
)
UNKNOWN_PRICE = Family(
    "sanic_proxy_requests_without_price", "counter", "Requests whose price is not known", _MODEL
)
BUDGET_LIMIT = Family(
    "sanic_proxy_budget_limit_dollars",
    "gauge",
    "A budget of a client, a team, a model or all, in US dollars per period",
    ("scope", "name", "per"),
    scale=NANO,
)
BUDGET_LEFT = Family(
    "sanic_proxy_budget_left_dollars",
    "gauge",
    "What has not been spent of a budget in its present period, in US dollars",
    ("scope", "name", "per"),
    scale=NANO,
)
CLIENT_REQUESTS = Family(
    "sanic_proxy_client_requests", "counter", "Requests of a client, by outcome", ("client", "outcome")
)
CLIENT_TOKENS = Family(
    "sanic_proxy_client_tokens", "counter", "Tokens of a client: input and output", ("client", "type")
)
REFUSED = Family(
    "sanic_proxy_refused_requests",
    "counter",
    "Requests that were refused before an attempt, by kind: rate, budget, key, access or capacity",
    ("client", "kind"),
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
    "sanic_proxy_saved_streams",
    "counter",
    "Attempts for the rest of a stream that broke off, by outcome",
    ("target", "outcome"),
)
HEDGES = Family(
    "sanic_proxy_hedges",
    "counter",
    "Second attempts beside a slow first one, by outcome: won, lost or failed",
    ("target", "outcome"),
)
WAIT = Family(
    "sanic_proxy_wait_seconds",
    "histogram",
    "Time that the proxy waited between attempts and for limits, of the requests that had to",
    _MODEL,
    SECONDS,
    MICRO,
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
DROPPED_CAPTURES = Family(
    "sanic_proxy_dropped_captures", "counter", "Captured requests that could not be written"
)
DROPPED_LOG_LINES = Family(
    "sanic_proxy_dropped_log_lines", "counter", "Lines of the log that could not be written"
)
IN_FLIGHT = Family("sanic_proxy_requests_in_flight", "gauge", "Requests in flight, of the last second")
CONNECTIONS = Family("sanic_proxy_connections", "gauge", "Connections of clients, of the last second")
BODY_BYTES = Family("sanic_proxy_body_bytes", "gauge", "Bytes of requests in memory, of the last second")
WAITING = Family(
    "sanic_proxy_requests_waiting", "gauge", "Requests that wait for a limit, of the last second"
)
CIRCUIT_OPENINGS = Family(
    "sanic_proxy_circuit_openings",
    "counter",
    "How often the circuit of a target has opened, in all workers",
    ("target",),
)
CIRCUIT_STATE = Family(
    "sanic_proxy_circuit_state",
    "gauge",
    "The circuit of a target: 0 closed in all workers, 1 open in some, 2 open in all",
    ("target",),
)
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
    REQUEST_TOKENS,
    SPEND,
    UNKNOWN_PRICE,
    BUDGET_LIMIT,
    BUDGET_LEFT,
    CLIENT_REQUESTS,
    CLIENT_TOKENS,
    REFUSED,
    ATTEMPTS,
    ATTEMPT_DURATION,
    SAVED_STREAMS,
    HEDGES,
    WAIT,
    DROPPED_FRAMES,
    LOOP_LAG,
    LOST_SERIES,
    DROPPED_TRACES,
    DROPPED_CAPTURES,
    DROPPED_LOG_LINES,
    IN_FLIGHT,
    WAITING,
    CONNECTIONS,
    BODY_BYTES,
    CIRCUIT_OPENINGS,
    CIRCUIT_STATE,
    OPEN_CIRCUITS,
    WORKERS,
)


@dataclass(frozen=True, slots=True)
class Alias:
    """A family under another name, made of the same numbers.

    `labels` maps the other names of labels to ours, or to a fixed text that begins with `=`. Only series
    whose labels have one of the values in `among`, and none of those in `unlike`, are in it. `merge` says
    what becomes of the numbers of series that differ only in labels which the alias has not.
    """

    name: str
    family: Family
    labels: Mapping[str, str] = field(default_factory=dict)
    among: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unlike: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    merge: Literal["sum", "min", "max"] = "sum"


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
    Alias("gen_ai_client_token_usage", REQUEST_TOKENS, {**_GEN_AI, "gen_ai_token_type": "type"}),
)
# Providers do not say which of the tokens are those of images or sound.
_USED = {**_GEN_AI, "gen_ai_token_modality": "=unknown"}
GEN_AI_NEW = (
    *_SERVER,
    Alias("gen_ai_client_inference_duration_seconds", ATTEMPT_DURATION, _CLIENT),
    Alias("gen_ai_client_inference_operation_input_tokens", REQUEST_TOKENS, _GEN_AI, _INPUT),
    Alias("gen_ai_client_inference_operation_output_tokens", REQUEST_TOKENS, _GEN_AI, _OUTPUT),
    Alias("gen_ai_client_inference_usage_input_tokens", TOKENS, _USED, _INPUT),
    Alias("gen_ai_client_inference_usage_output_tokens", TOKENS, _USED, _OUTPUT),
    Alias("gen_ai_client_inference_usage_cache_read_input_tokens", TOKENS, _USED, {"type": ("cached",)}),
    Alias("gen_ai_client_inference_usage_reasoning_output_tokens", TOKENS, _USED, {"type": ("reasoning",)}),
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
    Alias("litellm_request_queue_time_seconds", WAIT, _LITELLM),
    Alias("litellm_spend_metric", SPEND, {**_LITELLM, **_BY_KEY}),
    Alias("litellm_total_tokens_metric", TOKENS, _LITELLM, {"type": ("input", "output")}),
    Alias("litellm_input_tokens_metric", TOKENS, _LITELLM, _INPUT),
    Alias("litellm_output_tokens_metric", TOKENS, _LITELLM, _OUTPUT),
    Alias(
        "litellm_remaining_api_key_budget_metric",
        BUDGET_LEFT,
        {"api_key_alias": "name"},
        {"scope": ("client",)},
        merge="min",
    ),
    Alias(
        "litellm_remaining_team_budget_metric",
        BUDGET_LEFT,
        {"team_alias": "name"},
        {"scope": ("team",)},
        merge="min",
    ),
    Alias("litellm_deployment_state", CIRCUIT_STATE, _DEPLOYMENT, merge="max"),
    Alias("litellm_deployment_cooled_down", CIRCUIT_OPENINGS, _DEPLOYMENT),
    Alias("litellm_deployment_latency_per_output_token", TOKEN_TIME, _DEPLOYMENT),
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
