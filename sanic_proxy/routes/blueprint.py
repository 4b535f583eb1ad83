"""The blueprint of the proxy's own routes."""

from __future__ import annotations

from typing import Any

import sanic
from sanic.models.handler_types import RouteHandler
from typing_extensions import override


class Blueprint(sanic.Blueprint):
    """Sanic's, with the format of errors stated for each route.

    Where none is stated, Sanic reads and parses the source of the handler to guess it, which took a third
    of the time that a process needs to start. `ErrorRenderer` writes all our errors as JSON, whatever is
    stated here.
    """

    @override
    def add_route(self, *arguments: Any, **options: Any) -> RouteHandler:
        return super().add_route(*arguments, **{"error_format": "json", **options})
