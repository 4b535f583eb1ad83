"""Drive the real clients against running workers and a scripted upstream; print what each can do."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.clients import environments, examples, upstream_scripts
from tests.clients.agents import run as agents_run
from tests.clients.agents.agents import AGENTS
from tests.clients.agents.scenarios import SCENARIOS
from tests.clients.clients import CLIENTS, Client, reason
from tests.clients.driving import Driver, DriverError, environment
from tests.clients.environments import Package
from tests.clients.features import FACTS, FEATURES, LEAVE_WITHIN_S, Feature, Noticed
from tests.clients.report import Key, Outcome, counted, has_failed, rendered, verdict
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Upstream

KEY = "client-canary-0123456789"
WRONG_KEY = "client-unknown-0123456789"
WORKERS = 2


def proxy_settings(upstream: Upstream) -> dict[str, str]:
    return {
        **provider_settings(upstream),
        "SANIC_PROXY_API_KEYS": KEY,
        "SANIC_PROXY_HEARTBEAT_INTERVAL": str(upstream_scripts.HEARTBEAT_S),
        "SANIC_PROXY_STREAM_COMMIT_DELAY": str(upstream_scripts.COMMIT_DELAY_S),
    }


def cells(client: Client, features: Sequence[Feature]) -> Iterator[tuple[Feature, str, str | None]]:
    """The features of one client with each provider, and why one does not apply."""
    for feature in features:
        for provider in feature.providers if client.name in (feature.clients or (client.name,)) else ():
            yield feature, provider, reason(client.not_for, feature.name, provider)


class LastingDriver:
    """One client's driver, started anew when it has ended or hangs."""

    def __init__(self, command: Sequence[str], facts: Mapping[str, Any], home: Path, log: Path) -> None:
        self.requested_file = home / "requested"
        self._command = command
        self._settings = environment({**facts, "requested_file": str(self.requested_file)}, home)
        self._log = log
        self._driver: Driver | None = None

    def run_feature(self, feature: str, provider: str, model: str) -> dict[str, Any]:
        try:
            if self._driver is None:
                self._driver = Driver(self._command, self._settings, self._log)
                self._driver.wait_until_ready()
            return self._driver.run_feature(feature, provider, model)
        except DriverError:
            self.close()
            raise

    def close(self) -> None:
        if self._driver is not None:
            self._driver.stop()
            self._driver = None


def fault(driver: LastingDriver, upstream: Upstream, feature: Feature, provider: str) -> str:
    """Run one feature: what is wrong with it, by the driver or by what the upstream saw."""
    noticed = upstream_scripts.prepare(upstream, feature.name, provider, driver.requested_file)
    model = f"{provider}/{upstream_scripts.upstream_model(feature.name, provider)}"
    try:
        report = driver.run_feature(feature.name, provider, model)
    except DriverError as exc:
        return str(exc)
    if not report["ok"]:
        return str(report["why"])
    left_at = report.get("left_at")
    if left_at is not None:
        _wait_for_the_end(noticed)
    return "; ".join(upstream.problems) or feature.judge(noticed, provider, left_at)


def _wait_for_the_end(noticed: Noticed) -> None:
    until = time.monotonic() + LEAVE_WITHIN_S
    while noticed.closed_at is None and time.monotonic() < until:
        time.sleep(0.02)


def drive(
    client: Client, features: Sequence[Feature], upstream: Upstream, proxy: Proxy
) -> dict[Key, Outcome]:
    """One client through all features."""
    outcomes: dict[Key, Outcome] = {}
    try:
        command = environments.driver_command(client, client.driver)
    except environments.InstallError as exc:
        return {
            (client.name, feature.name, provider): Outcome("FAIL", str(exc))
            for feature, provider, _ in cells(client, features)
        }
    facts = {**FACTS, "base_url": f"{proxy.url}/v1", "key": KEY, "wrong_key": WRONG_KEY}
    log = environments.CACHE / f"{client.name}.log"
    log.write_bytes(b"")
    with tempfile.TemporaryDirectory() as home:
        driver = LastingDriver(command, facts, Path(home), log)
        try:
            for feature, provider, not_for in cells(client, features):
                if not_for is not None:
                    outcome = Outcome("-", not_for)
                else:
                    gap = reason(client.gaps, feature.name, provider)
                    outcome = verdict(fault(driver, upstream, feature, provider), gap)
                outcomes[client.name, feature.name, provider] = outcome
                _print_outcome(client, feature, provider, outcome)
        finally:
            driver.close()
    return outcomes


def _print_outcome(client: Client, feature: Feature, provider: str, outcome: Outcome) -> None:
    if outcome.kind != "-":
        line = f"{client.name} {feature.name} {provider}: {outcome.kind} {outcome.why}"
        print(line.rstrip(), file=sys.stderr, flush=True)


def heartbeat_fault(proxy: Proxy, upstream: Upstream) -> str:
    """Whether the slow streams have the heartbeats which they are there for."""
    headers = {"authorization": f"Bearer {KEY}"}
    for provider, mark in (("groq", b": ping"), ("straico", b'"delta":{}')):
        upstream_scripts.prepare(upstream, "slow", provider)
        model = f"{provider}/{upstream_scripts.upstream_model('slow', provider)}"
        body = proxy.chat(model, headers=headers, stream=True).body
        if body.count(mark) < 3:
            return f"the slow stream through {provider} has too few heartbeats: {body[:300]!r}"
    return ""


def run(clients: Sequence[Client], features: Sequence[Feature]) -> tuple[dict[Key, Outcome], str]:
    """All features, and what is wrong with the proxy itself."""
    outcomes: dict[Key, Outcome] = {}
    environments.CACHE.mkdir(exist_ok=True)
    upstream = Upstream()
    upstream.start()
    try:
        with running_proxy(proxy_settings(upstream), "--workers", str(WORKERS)) as proxy:
            trouble = heartbeat_fault(proxy, upstream)
            for client in clients:
                outcomes.update(drive(client, features, upstream, proxy))
        if "Traceback" in proxy.log:
            (environments.CACHE / "proxy.log").write_text(proxy.log, "utf-8")
            trouble = trouble or "the proxy has logged a traceback: .clients/proxy.log"
    finally:
        upstream.stop()
    return outcomes, trouble


def _print_report(packages: Sequence[Package], outcomes: Mapping[Key, Outcome], trouble: str) -> int:
    """Print the table; the exit code: 1 if a cell failed that is no known gap, or the proxy itself did."""
    print("\n".join(f"{package.name}: {package.package} {package.version}" for package in packages))
    print(f"\n{rendered(outcomes)}\n\n{counted(outcomes)}\n")
    if trouble:
        print(trouble)
    return 1 if trouble or has_failed(outcomes) else 0


def _print_list() -> None:
    for package in (*CLIENTS, *AGENTS):
        print(f"{package.name:18} {package.package} {package.version}")
    for title, rows in (
        ("features of the clients", {row.name: row.about for row in FEATURES}),
        ("scenarios of the agents", {row.name: row.about for row in SCENARIOS}),
    ):
        print("\n".join(["", f"{title}:", *(f"{name:18} {about}" for name, about in rows.items())]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/test-clients",
        description="Drive real clients and agents against running workers in front of a scripted upstream, "
        "and print a table: pass, FAIL, gap (known, with its reason), fixed (a gap that passes), - (does "
        "not apply). Each is installed into an environment of its own under .clients/ the first time.",
        epilog="Exit code: 1 if a cell is FAIL. What a driver wrote is in .clients/<client>.log; output and "
        "requests of an agent's run that failed are in .clients/<agent>-<scenario>-<provider>.log.",
    )
    parser.add_argument("client", nargs="*", help="only these clients and agents; all without")
    parser.add_argument("--agents", action="store_true", help="only the agents")
    parser.add_argument("--feature", action="append", help="only this one, or this scenario; may be repeated")
    parser.add_argument("--examples", action="store_true", help="only the examples of tests/examples/clients")
    parser.add_argument("--direct", action="store_true", help="only the agents, and without the proxy")
    parser.add_argument(
        "--limit", type=float, default=math.inf, metavar="SECONDS", help="start no agent after this time"
    )
    parser.add_argument("--list", action="store_true", help="the clients and the features, then end")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _print_list()
        return 0
    if options.examples:
        return examples.run()
    names = [package.name for package in (*CLIENTS, *AGENTS)]
    if unknown := set(options.client) - set(names):
        parser.error(f"no such client: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    known = {feature.name for feature in FEATURES} | {scenario.name for scenario in SCENARIOS}
    if unknown := set(options.feature or ()) - known:
        parser.error(f"no such feature: {', '.join(sorted(unknown))}; see --list")
    agents_only = options.agents or options.direct
    clients = [] if agents_only else [row for row in CLIENTS if row.name in (options.client or names)]
    agents = [row for row in AGENTS if row.name in (options.client or names)]
    features = [row for row in FEATURES if row.name in (options.feature or row.name)]
    scenarios = [row for row in SCENARIOS if row.name in (options.feature or row.name)]
    codes = []
    if clients and features:
        codes.append(_print_report(clients, *run(clients, features)))
    if agents and scenarios:
        done = (
            (agents_run.run_directly(agents, scenarios, options.limit), "")
            if options.direct
            else agents_run.run(agents, scenarios, options.limit)
        )
        codes.append(_print_report(agents, *done))
    return max(codes, default=0)


if __name__ == "__main__":
    # A time limit ends this process by SIGTERM: what it has started ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
