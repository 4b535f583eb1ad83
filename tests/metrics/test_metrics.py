"""The counts of requests, in one process: which numbers a record adds to, and how they are shown."""

from __future__ import annotations

import ast
import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sanic_proxy import metrics as metrics_package
from sanic_proxy.metrics import families as f
from sanic_proxy.metrics.exposition import Computed
from sanic_proxy.metrics.metrics import Dropped, Metrics
from sanic_proxy.metrics.requests import KNOWN_OUTCOMES, MAX_ROWS, MAX_SETS, RequestMetrics
from sanic_proxy.metrics.series import LAYOUT, NameLog, SeriesRegistry
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from sanic_proxy.state_store.shared import SharedMemory
from tests.support.metrics import Samples, samples, total

NOTHING = Dropped()
COMPUTED: Computed = {
    f.BUDGET_LEFT: [(("client", "alice", "day"), 2 * f.NANO), (("client", "alice", "month"), f.NANO)]
}


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.close()


def shown(metrics: Metrics, *aliases: str, is_openmetrics: bool = False) -> Samples:
    text = asyncio.run(metrics.text(aliases, COMPUTED, is_openmetrics=is_openmetrics)).decode()
    return samples(text, is_openmetrics=is_openmetrics)


def record(model: str = "small", target: str = "groq/llama", **fields: object) -> RequestRecord:
    """A whole answer: 10 ms in the proxy, 90 ms at the provider."""
    made = RequestRecord("id", "POST", "/v1/chat/completions", started=100.0)
    made.dialect, made.model, made.client = "chat", model, Client("c1", "alice")
    made.attempts = [Attempt(target, "ok", started=100.01, ended=100.1)]
    made.ended, made.finished = "complete", 100.1
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def observe(metrics: Metrics, *records: RequestRecord) -> None:
    observer = metrics.observer(lambda model: model == "configured")
    for each in records:
        observer(each)


async def beat(metrics: Metrics, open_circuits: Sequence[str], dropped: Dropped = NOTHING) -> None:
    metrics.beat(Traffic(), open_circuits, 0.002, dropped)
    await asyncio.sleep(0)


def test_a_whole_answer(metrics: Metrics) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    observe(metrics, record(usage=usage), record(usage=usage))
    found = shown(metrics)
    labels = {"model": "small", "target": "groq/llama"}
    assert total(found, "sanic_proxy_requests_total", dialect="chat", outcome="ok", **labels) == 2
    assert total(found, "sanic_proxy_request_duration_seconds_sum", **labels) == pytest.approx(0.2, abs=1e-4)
    assert total(found, "sanic_proxy_request_duration_seconds_bucket", le="0.1", **labels) == 2
    assert total(found, "sanic_proxy_overhead_seconds_sum") == pytest.approx(0.02, abs=1e-4)
    for kind, tokens in {"input": 200, "output": 40, "cached": 120, "reasoning": 10}.items():
        assert total(found, "sanic_proxy_tokens_total", type=kind, **labels) == tokens
    assert total(found, "sanic_proxy_client_tokens_total", client="alice") == 240
    assert total(found, "sanic_proxy_attempts_total", target="groq/llama", outcome="ok") == 2


def test_a_stream_by_its_first_content_gaps_and_speed(metrics: Metrics) -> None:
    observe(
        metrics,
        record(is_streaming=True, finished=102.1, longest_gap_s=0.7, usage={"completion_tokens": 101}),
    )
    found = shown(metrics)
    assert total(found, "sanic_proxy_time_to_first_content_seconds_sum") == pytest.approx(0.1, abs=1e-4)
    assert total(found, "sanic_proxy_longest_gap_seconds_sum") == pytest.approx(0.7, abs=1e-4)
    assert total(found, "sanic_proxy_output_tokens_per_second_sum") == pytest.approx(50, abs=1e-3)
    assert total(found, "sanic_proxy_time_per_output_token_seconds_sum") == pytest.approx(0.02, abs=1e-4)
    assert total(found, "sanic_proxy_overhead_seconds_sum") == pytest.approx(0.01, abs=1e-4)


def test_attempts_waits_and_saved_streams(metrics: Metrics) -> None:
    attempts = [
        Attempt("groq/llama", "rate_limit_exceeded", 429, 100.0, 100.1),
        Attempt("groq/llama", "circuit_open"),
        Attempt("azure/gpt", "ok", started=100.6, ended=100.7, resumed_at=12),
    ]
    observe(metrics, record(attempts=attempts, waited_s=0.5, dropped_frames=3, finished=100.7))
    found = shown(metrics)
    assert total(found, "sanic_proxy_attempts_total", outcome="circuit_open") == 1
    assert total(found, "sanic_proxy_attempts_total") == 3
    assert total(found, "sanic_proxy_attempt_duration_seconds_count") == 2
    assert total(found, "sanic_proxy_saved_streams_total", target="azure/gpt", outcome="ok") == 1
    assert total(found, "sanic_proxy_wait_seconds_sum") == pytest.approx(0.5)
    assert total(found, "sanic_proxy_wait_seconds_count") == 1
    assert total(found, "sanic_proxy_dropped_frames_total", target="azure/gpt") == 3
    assert total(found, "sanic_proxy_overhead_seconds_sum") == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("hedge_lost", "ok", "won"),
        ("ok", "hedge_lost", "lost"),
        ("ok", "upstream_error", "failed"),
    ],
)
def test_second_attempts_by_what_came_of_them(
    metrics: Metrics, first: str, second: str, outcome: str
) -> None:
    attempts = [
        Attempt("groq/llama", first, started=100.0, ended=100.5),
        Attempt("azure/gpt", second, started=100.2, ended=100.4),
    ]
    observe(metrics, record(attempts=attempts, hedged_at=100.2))
    found = shown(metrics)
    assert total(found, "sanic_proxy_hedges_total") == 1
    assert total(found, "sanic_proxy_hedges_total", target="azure/gpt", outcome=outcome) == 1


def test_what_clients_spend_at_each_target(metrics: Metrics) -> None:
    attempts = [
        Attempt("groq/llama", "upstream_disconnected", None, 100.0, 100.1, spent_nano=3 * f.NANO),
        Attempt("azure/gpt", "ok", started=100.2, ended=100.3),
    ]
    observe(metrics, record(spent_nano=f.NANO // 2), record(attempts=attempts, spent_nano=f.NANO))
    observe(metrics, record(is_unpriced=True))
    found = shown(metrics, "litellm")
    spend = "sanic_proxy_spend_dollars_total"
    assert total(found, spend, client="alice", model="small", target="groq/llama") == 3.5
    assert total(found, spend, client="alice", model="small", target="azure/gpt") == 1
    assert total(found, "litellm_spend_metric_total", api_key_alias="alice", api_provider="groq") == 3.5
    assert total(found, "sanic_proxy_requests_without_price_total") == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [("rate_limit_exceeded", "rate"), ("insufficient_quota", "budget"), ("invalid_api_key", "key")],
)
def test_refusals_are_those_without_an_attempt(metrics: Metrics, code: str, kind: str) -> None:
    observe(metrics, record(attempts=[], ended=code), record(ended=code))
    found = shown(metrics)
    assert total(found, "sanic_proxy_refused_requests_total", client="alice", kind=kind) == 1
    assert total(found, "sanic_proxy_refused_requests_total") == 1


def test_tokens_are_histograms_in_both_generations_of_genai(metrics: Metrics) -> None:
    observe(metrics, record(usage={"prompt_tokens": 100, "completion_tokens": 3}))
    found = shown(metrics, "genai-old", "genai-new")
    model = {"gen_ai_provider_name": "groq", "gen_ai_response_model": "llama"}
    old = "gen_ai_client_token_usage"
    assert total(found, f"{old}_sum", gen_ai_token_type="input", **model) == 100
    assert total(found, f"{old}_bucket", gen_ai_token_type="output", le="4.0", **model) == 1
    assert total(found, f"{old}_bucket", gen_ai_token_type="output", le="1.0", **model) == 0
    new = "gen_ai_client_inference_operation"
    assert total(found, f"{new}_input_tokens_bucket", le="64.0", **model) == 0
    assert total(found, f"{new}_input_tokens_bucket", le="256.0", **model) == 1
    assert total(found, f"{new}_output_tokens_count", **model) == 1


def test_the_circuit_of_each_target_over_all_workers() -> None:
    with tempfile.TemporaryFile() as numbers, tempfile.TemporaryFile() as names:
        ours = Metrics((numbers.fileno(), names.fileno()))
        observe(ours, record(), record(target="azure/gpt"))
        asyncio.run(beat(ours, ["groq/llama"]))
        found = shown(ours, "litellm")
        assert total(found, "sanic_proxy_circuit_state", target="groq/llama") == 2
        assert found["sanic_proxy_circuit_state", frozenset({("target", "azure/gpt")})] == 0
        assert total(found, "litellm_deployment_state", litellm_model_name="llama") == 2
        assert total(found, "sanic_proxy_circuit_openings_total", target="groq/llama") == 1
        assert total(found, "litellm_deployment_cooled_down_total", api_provider="groq") == 1
        ours.close()


def test_the_smallest_budget_of_a_client_is_what_it_has_left(metrics: Metrics) -> None:
    found = shown(metrics, "litellm")
    assert total(found, "sanic_proxy_budget_left_dollars", per="day") == 2
    assert total(found, "litellm_remaining_api_key_budget_metric", api_key_alias="alice") == 1


def test_what_was_dropped(metrics: Metrics) -> None:
    asyncio.run(beat(metrics, [], Dropped(traces=1, captures=2, log_lines=3)))
    found = shown(metrics)
    assert total(found, "sanic_proxy_dropped_traces_total") == 1
    assert total(found, "sanic_proxy_dropped_captures_total") == 2
    assert total(found, "sanic_proxy_dropped_log_lines_total") == 3


def test_many_rows_of_one_kind_are_added_up_in_between(metrics: Metrics) -> None:
    rows = 2 * MAX_ROWS + 7
    observe(metrics, *(record(usage={"prompt_tokens": 1}) for _ in range(rows)))
    found = shown(metrics)
    assert total(found, "sanic_proxy_requests_total") == rows
    assert total(found, "sanic_proxy_request_duration_seconds_count") == rows
    assert total(found, "sanic_proxy_tokens_total", type="input") == rows


def test_each_code_that_the_proxy_gives_an_error_is_a_label() -> None:
    package = Path(metrics_package.__file__).parents[1]
    names = set()
    # Providers choose codes of their own.
    for path in {*package.rglob("*.py")} - {
        *package.glob("providers/*/*.py"),
        *package.glob("providers/echo.py"),
    }:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code":
                given: ast.expr = node.value
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[-1]).endswith("record.ended"):
                given = node.value
            else:
                continue
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                names.add(given.value)
    assert len(names) > 20
    assert names - KNOWN_OUTCOMES - {"complete"} == set()


def test_text_of_clients_and_providers_becomes_no_label(metrics: Metrics) -> None:
    def failed(model: str) -> RequestRecord:
        attempts = [Attempt("groq/evil", "also_invented")]
        return record(model=model, ended="invented_by_a_provider", attempts=attempts)

    observe(metrics, *(failed(f'evil"\n{n}') for n in range(50)), failed("configured"))
    found = shown(metrics)
    requests = {labels for name, labels in found if name == "sanic_proxy_requests_total"}
    assert {dict(labels)["model"] for labels in requests} == {"other", "configured"}
    assert {dict(labels)["outcome"] for labels in requests} == {"other"}
    assert total(found, "sanic_proxy_requests_total", model="other", target="groq/other") == 50


def test_a_flood_of_models_that_are_answered_is_bounded(metrics: Metrics) -> None:
    observe(metrics, *(record(model=f"m{n}", target=f"echo/m{n}") for n in range(600)))
    found = shown(metrics)
    names = {dict(labels)["model"] for name, labels in found if name == "sanic_proxy_requests_total"}
    assert "other" in names
    assert len(names) <= 201
    assert total(found, "sanic_proxy_requests_total") == 600


def test_odd_usage_counts_as_nothing(metrics: Metrics) -> None:
    observe(metrics, record(usage={"prompt_tokens": "7", "completion_tokens": True}))
    observe(metrics, record(usage={"prompt_tokens": -1, "completion_tokens": 10**30}))
    observe(metrics, record(usage={"prompt_tokens_details": [1], "completion_tokens_details": "x"}))
    assert total(shown(metrics), "sanic_proxy_tokens_total") == 0


def test_hostile_labels_stay_one_line(metrics: Metrics) -> None:
    hostile = 'a"b\\c\nd{e}#\ud83d'
    observe(metrics, record(model=hostile))
    for is_openmetrics in (False, True):
        found = shown(metrics, is_openmetrics=is_openmetrics)
        models = {dict(labels).get("model") for _, labels in found} - {None}
        assert len(models) == 1


@pytest.mark.parametrize("is_openmetrics", [False, True])
def test_both_formats_and_all_aliases_are_accepted_by_prometheus(
    metrics: Metrics, is_openmetrics: bool
) -> None:
    observe(metrics, record(usage={"prompt_tokens": 3, "completion_tokens": 4}), record(ended="client_left"))
    asyncio.run(beat(metrics, ["groq/llama"]))
    found = shown(metrics, "genai-old", "genai-new", "litellm", is_openmetrics=is_openmetrics)
    assert total(found, "sanic_proxy_open_circuits", target="groq/llama") == 1
    assert total(found, "sanic_proxy_event_loop_lag_seconds_count") == 1
    gen_ai = {"gen_ai_provider_name": "groq", "gen_ai_response_model": "llama"}
    assert total(found, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **gen_ai) == 4
    assert total(found, "gen_ai_client_inference_usage_input_tokens_total", **gen_ai) == 3
    assert total(found, "gen_ai_server_request_duration_seconds_count", **gen_ai) == 2
    assert total(found, "litellm_proxy_total_requests_metric_total", api_key_alias="alice") == 2
    assert total(found, "litellm_proxy_failed_requests_metric_total", api_key_alias="alice") == 1
    assert total(found, "litellm_deployment_success_responses_total", litellm_model_name="llama") == 2


def test_a_circuit_that_closes_shows_none(metrics: Metrics) -> None:
    asyncio.run(beat(metrics, ["groq/llama"]))
    asyncio.run(beat(metrics, []))
    assert total(shown(metrics), "sanic_proxy_open_circuits", target="groq/llama") == 0


def test_requests_in_flight_at_a_reload_are_counted(metrics: Metrics) -> None:
    before = metrics.observer(lambda model: False)
    after = metrics.observer(lambda model: model == "configured")
    before(record())
    after(record())
    after(record(model="configured", ended="client_left"))
    found = shown(metrics)
    assert total(found, "sanic_proxy_requests_total", model="small") == 2
    assert total(found, "sanic_proxy_requests_total", model="configured") == 1


def test_a_flood_of_attempts_at_invented_models_is_bounded() -> None:
    memory = SharedMemory(layout=LAYOUT)
    with tempfile.TemporaryFile() as names:
        counted = RequestMetrics(SeriesRegistry(memory, NameLog(names.fileno())), lambda model: False)
        for number in range(2 * MAX_SETS):
            attempts = [Attempt(f"groq/{number}", "model_not_found"), Attempt(f"groq/{number}", "off")]
            counted.observe(record(model=f"m{number}", attempts=attempts))
        turns = 1
        while not counted.flush(at_most=MAX_SETS):
            turns += 1
        assert turns == 1
    memory.close()


def test_a_worker_that_is_replaced_writes_no_name_again() -> None:
    """Names of series are appended to a log of limited size, which outlives the workers."""
    with tempfile.TemporaryFile() as numbers, tempfile.TemporaryFile() as names:
        sizes = set()
        for _ in range(3):
            worker = Metrics((numbers.fileno(), names.fileno()))
            observe(worker, record())
            shown(worker)
            sizes.add(os.fstat(names.fileno()).st_size)
            worker.close()
        assert len(sizes) == 1
