"""Print the OpenAPI document, made by sanic-ext from the descriptions beside the routes."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from sanic import Sanic
from sanic_ext import Extend, openapi
from sanic_ext.extensions.openapi.builders import OperationStore, SpecificationBuilder
from sanic_ext.extensions.openapi.extension import OpenAPIExtension

from sanic_proxy import __version__
from sanic_proxy.routes import BLUEPRINTS
from sanic_proxy.routes.openapi import OPERATIONS

NAMED = "The provider, where the model's name is not to choose it; `?provider=` has the same effect"
SETTINGS = {
    "OAS_UI_REDOC": False,
    "OAS_UI_SWAGGER": False,
    "OAS_URL_PREFIX": "/openapi",
    "OAS_AUTODOC": False,
    "API_TITLE": "sanic-proxy",
    "API_VERSION": __version__,
    "API_DESCRIPTION": "OpenAI-compatible. Each route also answers without /v1.",
    "API_HOST": None,
}


class Document(OpenAPIExtension):  # type: ignore[no-untyped-call]
    """sanic-ext's extension, without its pages."""

    name = "document"

    def label(self) -> str:  # type: ignore[explicit-override]
        """No line at the start."""
        return ""


def application() -> Sanic[Any, Any]:
    """An application with the proxy's routes, to which sanic-ext adds its document."""
    app: Sanic[Any, Any] = Sanic("openapi", configure_logging=False)
    app.config.update({"AUTO_EXTEND": False, "MOTD": False, **SETTINGS})
    for blueprint in BLUEPRINTS:
        app.blueprint(blueprint)
    for route in app.router.routes:
        described = OPERATIONS.get(route.handler)
        if described is None:
            openapi.exclude()(route.handler)
            continue
        operation = OperationStore()[route.handler]  # type: ignore[no-untyped-call]
        operation.describe(described.summary)
        operation.tag(described.tag)
        operation.responses = described.responses
        if described.body is not None:
            operation.requestBody = {"required": True, "content": described.body}
        if described.is_call:
            operation.parameter("x-provider", str, "header", required=False, description=NAMED)
    Extend(app, extensions=[Document], built_in_extensions=False)
    return app


async def document() -> dict[str, Any]:
    """The document, which sanic-ext builds before a server starts."""
    app = application()
    with tempfile.TemporaryDirectory() as directory:
        server = await app.create_server(unix=str(Path(directory) / "socket"), return_asyncio_server=True)
        if server is None:
            raise SystemExit("no server could be made")
        await server.startup()
        await server.before_start()
        made: dict[str, Any] = SpecificationBuilder().build(app).serialize()
        await server.close()
    # sanic-ext keeps tags in a set, and Sanic a blueprint's routes.
    made["tags"].sort(key=lambda tag: str(tag["name"]))
    paths = sorted(made["paths"].items(), key=_place)
    made["paths"] = {path: dict(sorted(entry.items())) for path, entry in paths}
    return made


def _place(entry: tuple[str, Any]) -> tuple[bool, bool, str]:
    """Where a path stands in the document: chats first, then the other APIs, then the rest."""
    path = entry[0]
    return path != "/v1/chat/completions", not path.startswith("/v1/"), path


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(document()), separators=(",", ":")) + "\n")
