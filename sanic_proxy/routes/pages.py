"""The pages for people: what this is, and the documentation. They load nothing from elsewhere."""

from __future__ import annotations

import asyncio
import html
from contextlib import suppress

from sanic import Blueprint, HTTPResponse

from sanic_proxy import __version__
from sanic_proxy.errors import ProxyError
from sanic_proxy.observability.record import Client
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.page_files import PAGE_HEADERS, PageFile, serve_file
from sanic_proxy.server.access import allowed_models
from sanic_proxy.server.request import ProxyRequest, public_url
from sanic_proxy.state import AppState, state_of

blueprint = Blueprint("pages")

# How long the front page waits for a provider's list of models.
LIST_WAIT_S = 2.0


_INDEX = PageFile.read("index.html")
_DOCS = PageFile.read("docs.html")


async def index(request: ProxyRequest) -> HTTPResponse:
    """Say what this is, which providers are on, and how to call it."""
    state = state_of(request.app)
    # The page itself is open to everybody; which providers and models there are is for clients.
    is_client = state.settings.is_open or request.record.client.id != ""
    model = await _example_model(state, request.record.client) if is_client else "MODEL"
    url = public_url(request.fields, request.ip)  # so that the examples work when copied
    page = index_page(state, url, model, shows_providers=is_client)
    return HTTPResponse(page, content_type=_INDEX.content_type, headers=PAGE_HEADERS)


async def docs(request: ProxyRequest) -> HTTPResponse:
    """The documentation, whose URLs are relative to a path without a slash at its end."""
    if request.path.endswith("/"):
        return HTTPResponse(status=308, headers={**PAGE_HEADERS, "location": "../docs"})
    return _DOCS.answer(request)


async def _example_model(state: AppState, client: Client) -> str:
    """A model that the client may use, where one is known within `LIST_WAIT_S`."""
    with suppress(TimeoutError, ProxyError):
        async with asyncio.timeout(LIST_WAIT_S):
            await state.models.listed()
    listed = allowed_models(state.rulebook, client, state.models.known())
    return str(listed[0]["id"]) if listed else "MODEL"


def index_page(state: AppState, url: str, model: str, *, shows_providers: bool) -> str:
    """The front page. Everything that comes from outside is escaped."""
    names = sorted({provider.name for provider in state.providers.values()}) if shows_providers else []
    rows = "".join(f"<li><code>{html.escape(name)}</code></li>" for name in names)
    values = {
        "VERSION": __version__,
        "PROVIDERS": rows or f"<li>{'none' if shows_providers else 'shown to clients with a key'}</li>",
        "URL": html.escape(url),
        "MODEL": html.escape(model),
        "KEY": "" if state.settings.is_open else ' \\\n  -H "authorization: Bearer $SANIC_PROXY_KEY"',
    }
    page = _INDEX.body.decode()
    for name, value in values.items():
        page = page.replace(f"__{name}__", value)
    return page


blueprint.add_route(index, "/", methods=READ, name="index")
blueprint.add_route(docs, "/docs", methods=READ, name="docs")
for _path in ("/style.css", "/docs/docs.js", "/openapi.json"):
    serve_file(blueprint, _path, _path.rpartition("/")[2])
