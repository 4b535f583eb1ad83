"""Drive the agents against running workers and a scripted upstream."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.clients import environments
from tests.clients.agents.agents import GEMINI, MESSAGES, RESPONSES, Agent, Provider
from tests.clients.agents.drive import Access, drive
from tests.clients.agents.scenarios import COMMIT_DELAY_S, HEARTBEAT_S, Scenario
from tests.clients.clients import reason
from tests.clients.report import Key, Outcome, verdict
from tests.support.proxy import running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Upstream

KEY = "client-canary-0123456789"
WORKERS = 2
NO_TIME = "not run: the time limit (--limit) was reached"


def proxy_settings(upstream: Upstream) -> dict[str, str]:
    """All providers, each at the path of its shape."""
    return {
        **provider_settings(upstream),
        "SANIC_PROXY_API_KEYS": KEY,
        "SANIC_PROXY_HEARTBEAT_INTERVAL": str(HEARTBEAT_S),
        "SANIC_PROXY_STREAM_COMMIT_DELAY": str(COMMIT_DELAY_S),
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "ANTHROPIC_BASE_URL": f"{upstream.url}{MESSAGES.shape.root}/v1",
        "GOOGLE_API_KEY": "AIza-canary-0123456789",
        "GOOGLE_BASE_URL": f"{upstream.url}{GEMINI.shape.root}/v1beta/openai",
        "OPENAI_API_KEY": "sk-canary-0123456789",
        "OPENAI_BASE_URL": f"{upstream.url}{RESPONSES.shape.root}/v1",
    }


def cells(
    agent: Agent, scenarios: Sequence[Scenario], *, is_direct: bool = False
) -> Iterator[tuple[Scenario, Provider, str | None]]:
    """The scenarios of one agent with each provider, and the reason if one does not apply."""
    for scenario in scenarios:
        for provider in (agent.native,) if is_direct else (agent.native, *agent.translated):
            yield scenario, provider, reason(agent.not_for, scenario.name, provider.name)


def run_directly(
    agents: Sequence[Agent], scenarios: Sequence[Scenario], limit_s: float = math.inf
) -> dict[Key, Outcome]:
    """All scenarios without the proxy: a failure is caused by the agent or the scripted upstream."""
    upstream = Upstream()
    upstream.start()
    try:
        access = Access(upstream.url, KEY, is_direct=True)
        return _outcomes(agents, scenarios, upstream, access, time.monotonic() + limit_s)
    finally:
        upstream.stop()


def run(
    agents: Sequence[Agent], scenarios: Sequence[Scenario], limit_s: float = math.inf
) -> tuple[dict[Key, Outcome], str]:
    """All scenarios through running workers, and a fault of the proxy itself, if any.

    After `limit_s` seconds, which include installations, no further run is started.
    """
    until = time.monotonic() + limit_s
    upstream = Upstream()
    upstream.start()
    trouble = ""
    try:
        with running_proxy(proxy_settings(upstream), "--workers", str(WORKERS)) as proxy:
            outcomes = _outcomes(agents, scenarios, upstream, Access(proxy.url, KEY), until)
        if "Traceback" in proxy.log:
            (environments.CACHE / "agents-proxy.log").write_text(proxy.log, "utf-8")
            trouble = "the proxy has logged a traceback: .clients/agents-proxy.log"
    finally:
        upstream.stop()
    return outcomes, trouble


def _outcomes(
    agents: Sequence[Agent], scenarios: Sequence[Scenario], upstream: Upstream, access: Access, until: float
) -> dict[Key, Outcome]:
    outcomes: dict[Key, Outcome] = {}
    environments.CACHE.mkdir(exist_ok=True)
    for agent in agents:
        rows = [*cells(agent, scenarios, is_direct=access.is_direct)]
        try:
            folder = environments.installed(agent)
        except environments.InstallError as exc:
            failed = Outcome("FAIL", str(exc))
            outcomes |= {(agent.name, scenario.name, provider.name): failed for scenario, provider, _ in rows}
            continue
        for scenario, provider, not_for in rows:
            if not_for is not None:
                outcome = Outcome("-", not_for)
            elif time.monotonic() > until:
                outcome = Outcome("-", NO_TIME)
            else:
                outcome = _outcome(agent, folder, scenario, provider, upstream, access)
            outcomes[agent.name, scenario.name, provider.name] = outcome
    return outcomes


def _outcome(
    agent: Agent, folder: Path, scenario: Scenario, provider: Provider, upstream: Upstream, access: Access
) -> Outcome:
    name = f"{agent.name}-{scenario.name}-{provider.name}"
    log = environments.CACHE / f"{name}.log"
    found, record = drive(agent, folder, scenario, provider, upstream, access)
    outcome = verdict("; ".join(found), reason(agent.gaps, scenario.name, provider.name))
    if found:
        log.write_text(record, "utf-8")
    else:
        log.unlink(missing_ok=True)
    note = f"{agent.name} {scenario.name} {provider.name}: {outcome.kind} {outcome.why}"
    print(note.rstrip(), file=sys.stderr, flush=True)
    return outcome
