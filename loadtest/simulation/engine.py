"""Runs one case: requests that arrive at workers, each with the routing of a real one, on a clock of its own.

The targets of a request come from `Router`, its attempts from `RetryState`; circuits, budgets, loads,
statistics and pins are those of a worker. Only what is around them is simulated: the clock, the targets, and
the loop of `retry_loop.first_good`, which here is a chain of events instead of awaits. All chance comes from
one seeded generator, so that a case has the same result each time.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.simulation.scenarios import (
    CAPACITY,
    FIRST_CONTENT_S,
    NAMES,
    REFUSAL_S,
    SPREAD,
    STREAM_S,
    Scenario,
)
from sanic_proxy import errors
from sanic_proxy.config.model import ModelSettings
from sanic_proxy.config.targets import Strategy, TargetSettings
from sanic_proxy.dialects.base import ParsedRequest
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.routing.breaker import BreakerRegistry
from sanic_proxy.routing.probes import Probes
from sanic_proxy.routing.router import Router
from sanic_proxy.routing.targets import Limits, RetryState, Target
from sanic_proxy.state_store.shared import SharedMemory

MODEL = "bench"
DURATION_S = 60.0
REQUESTS_PER_S = 50.0
# The default of SANIC_PROXY_TIMEOUT_FIRST_CONTENT.
FIRST_CONTENT_LIMIT_S = 30.0
CLIENTS = 20
SESSIONS = 100
# The prompt of a session, of some 2 KiB.
PROMPT, PROMPT_REPEATS = "What does session {} say? ", 80
SEED = 7


@dataclass(frozen=True)
class Case:
    """`has_sessions`: requests name their sessions, which keep their targets. `seed`: of all chance."""

    scenario: Scenario
    strategy: Strategy
    workers: int = 1
    has_sessions: bool = False
    duration_s: float = DURATION_S
    seed: int = SEED


@dataclass
class Figures:
    """The result of a case.

    `served` counts the answers of each target and `sent` the attempts by target and second; `times` are the
    seconds to the first content, and `repeated` the requests that met the target of their session's last one.
    """

    served: Counter[str] = field(default_factory=Counter)
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    lost: int = 0
    repeated: int = 0

    def share(self, target: str) -> float:
        """The share of all answers that came from `target`."""
        return self.served[target] / max(1, self.served.total())

    def percentile(self, share: float) -> float:
        """The time to first content that `share` of the answers do not exceed."""
        ordered = sorted(self.times)
        return ordered[max(0, round(share * len(ordered)) - 1)]

    @property
    def sent_in_all(self) -> int:
        """The number of attempts."""
        return self.sent.total()

    @property
    def herding(self) -> float:
        """The most requests that a target got within a second, as a multiple of its even share."""
        return max(self.sent.values()) * len(NAMES) / REQUESTS_PER_S


def run(case: Case) -> Figures:
    """The figures of one case."""
    return _Run(case).run()


@dataclass
class _Server:
    """A simulated target: what all workers have in flight there."""

    in_flight: int = 0


class _Run:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.chance = random.Random(case.seed)
        self.now = 0.0
        self.figures = Figures()
        self.servers = {name: _Server() for name in NAMES}
        self.last: dict[str, str] = {}  # the target of each session's last answer
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        # The workers are those of one machine: probes, and requests in flight, are known to all.
        self._memory = SharedMemory()
        self._routers = [self._router() for _ in range(case.workers)]

    def run(self) -> Figures:
        self.at(0.0, self._arrive)
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self._memory.close()
        return self.figures

    def at(self, time_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), happen))

    def _router(self) -> Router[str]:
        model = ModelSettings(
            MODEL,
            tuple(TargetSettings(name, "m") for name in NAMES),
            strategy=self.case.strategy,
            affinity="auto" if self.case.has_sessions else "off",
        )
        return Router(
            {name: [name] for name in NAMES},
            (),
            is_on=True,
            embedded=frozenset(),
            models=[model],
            first_content_s=FIRST_CONTENT_LIMIT_S,
            registry=BreakerRegistry(random=self.chance.random, probes=Probes(self._memory)),
            shared=self._memory,
            random=self.chance.random,
            clock=lambda: self.now,
            workers=self.case.workers,
        )

    def _arrive(self) -> None:
        """A request arrives, and the next one is on its way."""
        next_at = self.now + self.chance.expovariate(REQUESTS_PER_S)
        if next_at < self.case.duration_s:
            self.at(next_at, self._arrive)
        _Request(self, self.chance.choice(self._routers)).attempt()


class _Request:
    """One request at one worker."""

    def __init__(self, run: _Run, router: Router[str]) -> None:
        self._run = run
        self._router = router
        self._arrived_at = run.now
        session = run.chance.randrange(SESSIONS)
        self._session, client = f"session {session}", f"client {session % CLIENTS}"
        self._record = RequestRecord(
            "", "POST", "", client=Client(client, client), started=run.now, is_streaming=True
        )
        prompt = {"messages": [{"role": "user", "content": PROMPT.format(session) * PROMPT_REPEATS}]}
        asked = ParsedRequest(b"", prompt, MODEL, is_streaming=True)
        targets = router.resolve_conversation(asked, {"x-session-affinity": self._session}, self._record)
        self._state = RetryState(
            targets, Limits(), self._record, clock=lambda: run.now, random=run.chance.random
        )

    def attempt(self) -> None:
        run = self._run
        try:
            target = self._state.next()
        except errors.ProxyError:
            self._lose()
            return
        name, server = target.provider, run.servers[target.provider]
        run.figures.sent[name, int(run.now)] += 1
        server.in_flight += 1
        is_ill = name == NAMES[0]
        if is_ill and run.case.scenario.is_down(run.now):
            down = errors.UpstreamError("down", upstream_status=503)
            run.at(run.now + REFUSAL_S, lambda: self._fail(server, down))
            return
        seconds = FIRST_CONTENT_S * run.chance.uniform(1 - SPREAD, 1 + SPREAD)
        seconds *= max(1.0, server.in_flight / CAPACITY) * (run.case.scenario.slowness if is_ill else 1.0)
        limit_s = self._state.first_content_s
        if limit_s and seconds > limit_s:
            late = errors.UpstreamTimeout("late")
            run.at(run.now + limit_s, lambda: self._fail(server, late))
        else:
            run.at(run.now + seconds, lambda: self._begin(target, server))

    def _fail(self, server: _Server, error: errors.ProxyError) -> None:
        server.in_flight -= 1
        wait_s = self._state.record_failure(error)
        if wait_s is None:
            self._lose()
        else:
            self._run.at(self._run.now + wait_s, self.attempt)

    def _begin(self, target: Target[str], server: _Server) -> None:
        run, figures = self._run, self._run.figures
        self._state.record_success()
        figures.served[target.provider] += 1
        figures.times.append(run.now - self._arrived_at)
        figures.repeated += run.last.get(self._session) == target.provider
        run.last[self._session] = target.provider
        run.at(run.now + STREAM_S * run.chance.uniform(1 - SPREAD, 1 + SPREAD), lambda: self._end(server))

    def _end(self, server: _Server) -> None:
        server.in_flight -= 1
        self._state.release()
        self._record.finish(())

    def _lose(self) -> None:
        self._run.figures.lost += 1
        self._state.release()
        self._record.finish(())
