"""GET /metrics: the metrics of all workers, whichever answers."""

from __future__ import annotations

from sanic import HTTPResponse

from sanic_proxy.governance.accounts import BudgetUse
from sanic_proxy.metrics.exposition import OPENMETRICS, PROMETHEUS
from sanic_proxy.metrics.families import BUDGET_LEFT, BUDGET_LIMIT
from sanic_proxy.routes.admin import authorise as authorise_operator
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import admission
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import state_of

blueprint = Blueprint("metrics")


@blueprint.on_request
async def authorise(request: ProxyRequest) -> None:
    """Demand the admin key, unless the metrics have a port of their own."""
    settings = state_of(request.app).settings
    if settings.metrics_address is None:
        await authorise_operator(request)
    else:
        admission.check_offered(request, settings)


async def metrics(request: ProxyRequest) -> HTTPResponse:
    """Prometheus' text format, or OpenMetrics for those who accept it."""
    state = state_of(request.app)
    is_openmetrics = "application/openmetrics-text" in request.fields.get("accept", "")
    budgets = await state.budgets.latest()
    computed = {
        BUDGET_LIMIT: [(_labels(name, use), use.limit) for name, use in budgets],
        BUDGET_LEFT: [(_labels(name, use), max(0, use.limit - use.used)) for name, use in budgets],
    }
    names = state.settings.metrics_names
    text = await state.metrics.text(names, computed, is_openmetrics=is_openmetrics)
    return HTTPResponse(text, content_type=OPENMETRICS if is_openmetrics else PROMETHEUS)


def _labels(name: str, use: BudgetUse) -> tuple[str, ...]:
    return use.scope.kind, name, use.per


blueprint.add_route(metrics, admission.METRICS_PATH, methods=READ, name="metrics")
