"""The one object that routes ask whether a client may send a request, and what they charge it to.

`admit` checks a client's rates and its budgets, in this order: a rate is decided in memory, a budget may need
the store. Which models and endpoints a client may use has been checked before (`server.access`).

Limits of several scopes (`rules`) hold together. What they are for one client and model is worked out once
for as long as its periods last, and kept in a table.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, overload

from sanic_proxy import errors
from sanic_proxy.config.model import Settings, Timeouts
from sanic_proxy.config.rules import ClientRules, ScopeLimits
from sanic_proxy.governance import budgets, refusals
from sanic_proxy.governance.batch_charge import BatchBook, BatchCharge
from sanic_proxy.governance.batches import BatchInput, Counted, PricesOf
from sanic_proxy.governance.budgets import Periods
from sanic_proxy.governance.charge import Charge, Tariff, Terms
from sanic_proxy.governance.estimate import Asked, Estimator, Tokens
from sanic_proxy.governance.leases import IDLE_S, Lease, Notice
from sanic_proxy.governance.ledger import (
    BudgetReserved,
    BudgetSpent,
    Ledger,
    LedgerError,
)
from sanic_proxy.governance.rates import Admission, Limited, RateRefusal, Rates
from sanic_proxy.governance.rules import (
    Rulebook,
    Scope,
    ScopedLimits,
    lists_endpoint,
)
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.state_store.base import StateStore
from sanic_proxy.state_store.shared import SharedMemory
from sanic_proxy.upstream.client import Endpoint, UpstreamClient

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=Charge)
# Charge, or a subclass.
MakeCharge = Callable[
    [Terms, Asked, tuple[str, str, str, str], Admission | None, tuple[int | None, Tokens] | None], C
]
# A worker is kept busy by each input file that it reads, and no client needs two at once.
_ONE_AT_A_TIME = ScopeLimits(concurrent=1)

BUDGET_HEADER = "x-sanic-proxy-budget"
# How long a webhook may take.
WEBHOOK_S = 10.0
MAX_PLANS = 4096
_NO_BREAKS = dict.fromkeys(map(ord, "\r\n\0"))
# Endpoints that pass through, whose cost is known once their answer is there: it reports its tokens, or the
# request tells what is billed (`units`).
_COUNTED = frozenset(
    {
        *("/completions", "/embeddings", "/moderations"),
        *("/images/generations", "/audio/speech", "/rerank"),
    }
)


def _nothing_asked() -> Asked:
    return Asked(text_bytes=0, has_output=False)


def governs(settings: Settings) -> bool:
    """Whether the settings limit anything, or want a ledger."""
    book = rulebook_of(settings)
    makes_keys = settings.require_keys or (settings.admin_key is not None and not settings.is_open)
    return (
        settings.ledger
        or makes_keys  # these may have limits, too
        or not book.is_empty
        or any(_is_limited(client.rules) for client in settings.clients)
    )


def _is_limited(rules: ClientRules) -> bool:
    has_caps = not rules.max_requests is rules.max_cost_nano is None
    return bool(has_caps or rules.models or rules.endpoints or not rules.limits.is_empty)


def rulebook_of(settings: Settings) -> Rulebook:
    """The limits of teams, models and the whole proxy."""
    models = {model.name: model.limits for model in settings.models}
    return Rulebook(settings.teams, models, settings.limits)


@dataclass(slots=True)
class Request:
    """What of a request decides whether it is admitted.

    `headers` are the client's, keyed by lower-case name. `endpoint` is as `rules.endpoint_of` names it.
    `is_free`: it costs nothing, whatever it is. `needs_listing`: with a budget, the client's rules must name
    the endpoint, as its cost cannot be computed.
    """

    record: RequestRecord
    headers: Mapping[str, str]
    endpoint: str
    asked: Asked = field(default_factory=_nothing_asked)
    is_free: bool = False
    needs_listing: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    """What holds for one client and model until `until` (time of day)."""

    rules: ClientRules
    limits: tuple[Limited, ...]
    terms: Terms
    has_caps: bool
    until: float


class Governor:
    """See the module. Made in a running loop. `directory` is for the ledger's journals."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        directory: Path,
        memory: SharedMemory,
        client: UpstreamClient | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._wall = wall
        self._client = client
        self._book = rulebook_of(settings)
        later = asyncio.get_running_loop().call_later
        self._rates = Rates(memory, workers=settings.worker_count, later=later)
        self._estimator = Estimator()
        self._periods = Periods()
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._webhooks: set[asyncio.Task[None]] = set()
        self.ledger = Ledger(
            store,
            directory,
            days=settings.ledger_days,
            passes=settings.on_store_down == "allow",
            announce=self._announce,
            wall=wall,
        )
        self.ledger.start()
        self.batches = BatchBook(store, self._now_ms)

    @overload
    def admit(self, request: Request, tariff: Tariff | None) -> tuple[Charge, Awaitable[None] | None]: ...

    @overload
    def admit(
        self, request: Request, tariff: Tariff | None, make: MakeCharge[C]
    ) -> tuple[C, Awaitable[None] | None]: ...

    def admit(
        self, request: Request, tariff: Tariff | None, make: MakeCharge[Charge] = Charge
    ) -> tuple[Charge, Awaitable[None] | None]:
        """Admit a request that goes to the target with `tariff` first.

        Returns its charge, which `make` makes, and what has to be awaited before the request may be sent, if
        anything has. Either raises the ProxyError for the client. The charge is settled when the request's
        record is finished. Without a tariff, rates alone are asked, and nothing is reserved.
        """
        record = request.record
        rules, model = record.client.rules, record.model or ""
        plan = self._plan(record.client, model)
        terms = plan.terms if not plan.has_caps else self._with_session(plan, request.headers)
        if request.needs_listing and not request.is_free:
            self._check_listing(rules, request.endpoint, terms)
        asked = request.asked
        most = None if tariff is None else tariff.max_output
        tokens = terms.memory.tokens(asked, most)
        admission = self._rates.admit(plan.limits, tokens[0] + tokens[1]) if plan.limits else None
        if isinstance(admission, RateRefusal):
            raise self._rate_limited(admission, record)
        names = record.request_id, record.dialect, request.endpoint, budgets.session_of(request.headers)
        charge = make(terms, asked, names, admission, (most, tokens))
        charge.is_free = request.is_free
        is_listed = asked.units is not None and lists_endpoint(rules, request.endpoint)
        charge.needs_price = not request.needs_listing and not is_listed
        record.settle = charge.finish
        return charge, None if tariff is None else charge.reserve(tariff)

    def batch_input(
        self, request: Request, prices_of: PricesOf, *, max_image_tokens: int, has_output: bool
    ) -> BatchInput | None:
        """What has to read a batch's input file before its cost is reserved; None: nothing needs it.

        That is a budget of money, or one of a model, as only the file tells which these are.
        """

        def counted(model: str) -> Counted:
            terms = self._batch_terms(request, (model,))
            return Counted(terms.has_money, terms.is_strict)

        if not self._book.limits_models and not counted("").has_money:
            return None
        return BatchInput(
            request.record.client.rules.id,
            self._estimator,
            prices_of,
            counted,
            max_image_tokens=max_image_tokens,
            has_output=has_output,
        )

    def count_batch(self, request: Request, charge: BatchCharge, batch: BatchInput) -> None:
        """Have `charge` count what was read, in the budgets of all models of the batch."""
        charge.costs(batch.nano, self._batch_terms(request, batch.models))

    def _batch_terms(self, request: Request, models: Sequence[str]) -> Terms:
        """Those of a request for all of these models at once."""
        client = request.record.client
        plans = [self._plan(client, model) for model in models or ("",)]
        each = [self._with_session(plan, request.headers) for plan in plans]
        if len(each) == 1:
            return each[0]
        leases = {lease.charge.counter: lease for terms in each for lease in terms.leases}
        return self._terms(client.rules, client.id, "", tuple(leases.values()))

    @contextmanager
    def reading_input(self, record: RequestRecord) -> Iterator[None]:
        """While a request reads an input file. Raises LimitReached if another one of the client does."""
        client = record.client
        scope = Scope("batch input", client.rules.id or client.id, client.rules.name)
        limits = self._rates.limits_of((ScopedLimits(scope, _ONE_AT_A_TIME),))
        admission = self._rates.admit(limits, 0)
        if isinstance(admission, RateRefusal):
            raise self._rate_limited(admission, record)
        try:
            yield
        finally:
            admission.settle(None)

    def header_lines(self, charge: Charge, dialect: str) -> str:
        """What the client gets beside its answer, as lines of a head: how its limits and budgets stand."""
        lines = ""
        admission = charge.admission
        if admission is not None:
            lines = refusals.limit_lines(
                admission.requests, admission.tokens, dialect=dialect, now=self._wall()
            )
        warned = None
        for lease in charge.leases:
            if lease.percent and (warned is None or lease.percent > warned.percent):
                warned = lease
        if warned is not None:
            name = warned.charge.describe().translate(_NO_BREAKS)
            lines += f"{BUDGET_HEADER}: {warned.percent}% of the {name} is used\r\n"
        return lines

    async def aclose(self) -> None:
        """Book everything, and send what has been announced."""
        await self.batches.aclose()
        self._rates.give_back()
        await self.ledger.aclose()
        if self._webhooks:
            await asyncio.wait(self._webhooks, timeout=WEBHOOK_S)

    # Rules

    def _check_listing(self, rules: ClientRules, endpoint: str, terms: Terms) -> None:
        if terms.has_money and not lists_endpoint(rules, endpoint):
            raise errors.Forbidden(
                f"The cost of {endpoint} cannot be computed, and this key has a budget: the operator can "
                "allow the endpoint by naming it in the key's `endpoints`",
                code="endpoint_not_allowed",
            )

    def _plan(self, client: Client, model: str) -> _Plan:
        now, rules = self._wall(), client.rules
        key = client.id, model
        plan = self._plans.get(key)
        if plan is None or plan.rules is not rules or not plan.until - IDLE_S / 2 <= now < plan.until:
            scopes = self._book.limits_for(rules, model)
            counted = budgets.charges(scopes, self._periods, now)
            leases = tuple(self.ledger.lease(charge) for charge in counted)
            until = min((charge.end for charge in counted), default=math.inf)
            plan = _Plan(
                rules,
                self._rates.limits_of(scopes),
                self._terms(rules, client.id, model, leases),
                not rules.max_requests is rules.max_cost_nano is None,
                min(until, now + IDLE_S / 2),
            )
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _terms(self, rules: ClientRules, client_id: str, model: str, leases: tuple[Lease, ...]) -> Terms:
        return Terms(
            self.ledger,
            self._estimator.memory(rules.id, model),
            leases,
            (rules.id or client_id, rules.team, model),
            self._refusal,
            self._now_ms,
        )

    def _with_session(self, plan: _Plan, headers: Mapping[str, str]) -> Terms:
        """The terms of a request with the caps of its session."""
        rules, terms = plan.rules, plan.terms
        own = budgets.session_charges(rules.id, headers, rules.max_requests, rules.max_cost_nano)
        if not own:
            return terms
        leases = (*terms.leases, *(self.ledger.lease(charge) for charge in own))
        return self._terms(rules, terms.client, terms.model, leases)

    # Refusals

    def _rate_limited(self, refusal: RateRefusal, record: RequestRecord) -> errors.LimitReached:
        headers = refusals.limit_headers(
            refusal.requests, refusal.tokens, dialect=record.dialect, now=self._wall()
        )
        return refusals.rate_limited(refusal, headers)

    def _refusal(self, error: LedgerError) -> errors.ProxyError:
        if isinstance(error, BudgetSpent):
            return refusals.budget_used_up(
                error.charge,
                error.used,
                error.amount,
                now=self._wall(),
                status=self._settings.budget_status,
            )
        if isinstance(error, BudgetReserved):
            return refusals.budget_reserved(error.charge, error.used, error.reserved)
        logger.error("a request was refused, as the ledger cannot be used: %s", error)
        return errors.StoreFailed(
            "The proxy cannot account for requests at the moment; retry in 1 s", retry_after_s=1
        )

    def _now_ms(self) -> int:
        return int(1000 * self._wall())

    # Thresholds

    def _announce(self, notice: Notice) -> None:
        charge, percent, used = notice
        logger.warning("%d%% of the %s is used", percent, charge.describe())
        url, client = self._settings.budget_webhook, self._client
        if url is not None and client is not None:
            kind, name, per, start = charge.counter
            body = {
                "event": "budget_threshold",
                "percent": percent,
                "scope": kind,
                "name": name,
                "per": per,
                "period_start": start,
                "limit_nano_usd": charge.limit,
                "used_nano_usd": used,
            }
            task = asyncio.get_running_loop().create_task(_post(client, url.reveal(), body))
            self._webhooks.add(task)
            task.add_done_callback(self._webhooks.discard)


async def _post(client: UpstreamClient, url: str, body: JsonMapping) -> None:
    endpoint = Endpoint("POST", url, {"content-type": "application/json"}, Timeouts())
    try:
        response = await client.send(
            endpoint, body=(codec.dumps(body),), total_at=client.now() + WEBHOOK_S, is_fresh=True
        )
    except errors.ProxyError as exc:
        logger.error("the budget webhook failed: %s", exc.message)  # noqa: TRY400 - no bug of ours
    else:
        response.close()


def is_counted(endpoint: str) -> bool:
    """Whether the cost of an endpoint that passes through is known from its answer."""
    return endpoint in _COUNTED
