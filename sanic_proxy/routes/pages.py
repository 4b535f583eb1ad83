"""The pages for people: what this is, and the documentation. They load nothing from elsewhere."""

from __future__ import annotations

import html
from importlib import resources

from sanic import Blueprint, HTTPResponse

from sanic_proxy import __version__
from sanic_proxy.routes import openapi
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import AppState, state_of

blueprint = Blueprint("pages")

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
    ),
    "x-content-type-options": "nosniff",
}


def _page(name: str) -> str:
    return resources.files("sanic_proxy").joinpath("pages", name).read_text("utf-8")


_INDEX = _page("index.html")
_DOCS = _page("docs.html")
_DOCS_SCRIPT = _page("docs.js")


@openapi.page
async def index(request: ProxyRequest) -> HTTPResponse:
    """Say what this is, which providers are on, and how to call it."""
    return _html(index_page(state_of(request.app), request.fields.get("host") or "127.0.0.1:8000"))


@openapi.page
async def docs(request: ProxyRequest) -> HTTPResponse:
    """Show the OpenAPI document."""
    return _html(_DOCS)


@openapi.page
async def docs_script(request: ProxyRequest) -> HTTPResponse:
    """Read the OpenAPI document in the browser."""
    return HTTPResponse(_DOCS_SCRIPT, content_type="text/javascript; charset=utf-8", headers=_HEADERS)


def index_page(state: AppState, host: str) -> str:
    """The front page. Everything that comes from outside is escaped."""
    names = sorted({provider.name for provider in state.providers.values()})
    # Straico's is the model that needs no prefix; else the first provider's name goes in front.
    model = (
        "echo/echo" if names == ["echo"] else f"{names[0]}/MODEL" if state.settings.router_is_on else "MODEL"
    )
    rows = "".join(f"<li><code>{html.escape(name)}</code></li>" for name in names)
    values = {
        "VERSION": __version__,
        "PROVIDERS": rows or "<li>none</li>",
        "HOST": html.escape(host),
        "MODEL": html.escape(model),
        "KEY": "" if state.settings.is_open else ' \\\n  -H "authorization: Bearer $SANIC_PROXY_KEY"',
    }
    page = _INDEX
    for name, value in values.items():
        page = page.replace(f"__{name}__", value)
    return page


def _html(page: str) -> HTTPResponse:
    return HTTPResponse(page, content_type="text/html; charset=utf-8", headers=_HEADERS)


blueprint.add_route(index, "/", name="index")
blueprint.add_route(docs, "/docs", name="docs")
blueprint.add_route(docs_script, "/docs/docs.js", name="docs_script")
