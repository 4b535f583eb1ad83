"""The pages for people: what this is, and the documentation. They load nothing from elsewhere."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shlex
from contextlib import suppress

from sanic import HTTPResponse

from sanic_proxy import __version__
from sanic_proxy.config.model import Settings
from sanic_proxy.errors import ProxyError
from sanic_proxy.observability.record import Client
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.routes.page_files import PAGE_HEADERS, PageFile, serve_file
from sanic_proxy.server import admission
from sanic_proxy.server.access import allowed_models
from sanic_proxy.server.request import ProxyRequest, public_url
from sanic_proxy.state import AppState, state_of

blueprint = Blueprint("pages")

_PLACE = re.compile("__([A-Z_]+)__")
_SHOWN_TO_CLIENTS = "Clients with a key see them here."
# What the examples say of the client's key: they are pasted into a shell that has it in a variable.
_KEY = "SANIC_PROXY_KEY"
_WITH_KEY = {
    "KEY_NOTE": (f"<p>The examples read your key from the environment: <code>export {_KEY}=...</code></p>"),
    "KEY_HEADER": f' \\\n  -H "authorization: Bearer ${_KEY}"',
    "PYTHON_IMPORT": "import os\n\n",
    "PYTHON_KEY": f'os.environ["{_KEY}"]',
    "NODE_KEY": f"process.env.{_KEY}",
}
_WITHOUT_KEY = {
    "KEY_NOTE": "<p>This host needs no key. Client libraries demand one nevertheless: any text will do.</p>",
    "KEY_HEADER": "",
    "PYTHON_IMPORT": "",
    "PYTHON_KEY": '"unused"',
    "NODE_KEY": '"unused"',
}

# How long the front page waits for a provider's list of models.
LIST_WAIT_S = 2.0


_INDEX = PageFile.read("index.html")
_DOCS = PageFile.read("docs.html")
# Where no key is needed, the page asks for the models, so that its examples have one that exists.
_OPEN_DOCS = PageFile.of(_DOCS.body.replace(b"<body>", b"<body data-open>"), _DOCS.content_type)


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
    return (_OPEN_DOCS if state_of(request.app).settings.is_open else _DOCS).answer(request)


async def _example_model(state: AppState, client: Client) -> str:
    """A model that the client may use, where one is known within `LIST_WAIT_S`."""
    with suppress(TimeoutError, ProxyError):
        async with asyncio.timeout(LIST_WAIT_S):
            await state.models.listed()
    listed = allowed_models(state.rulebook, client, state.models.known())
    return str(listed[0]["id"]) if listed else "MODEL"


def index_page(state: AppState, url: str, model: str, *, shows_providers: bool) -> str:
    """The front page. Text from outside is escaped: for HTML, and in the examples for their language."""
    settings = state.settings
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    values = {
        "VERSION": __version__,
        "PROVIDERS": _providers(state) if shows_providers else f"<p>{_SHOWN_TO_CLIENTS}</p>",
        "URL": _with_base(json.dumps(url)[1:-1], url),
        "MODEL": html.escape(json.dumps(model)),
        "SHELL_URL": _with_base(shlex.quote(url), url),
        "SHELL_BODY": html.escape(shlex.quote(body)),
        "LINKS": _links(settings),
        **(_WITHOUT_KEY if settings.is_open else _WITH_KEY),
    }
    return _PLACE.sub(lambda place: values[place[1]], _INDEX.body.decode())


def _links(settings: Settings) -> str:
    """Links to what the reader's browser may open, as far as it is served on this port."""
    links = {
        "v1/models": "Models" if settings.is_open else "",
        "ui": "Administration" if settings.admin_key is not None and settings.admin_address is None else "",
    }
    return "\n".join(f'<a href="{url}">{name}</a>' for url, name in links.items() if name)


def _providers(state: AppState) -> str:
    names = sorted({provider.name for provider in state.providers.values()})
    rows = "".join(f"<li><code>{html.escape(name)}</code></li>" for name in names)
    return f'<ul class="row plain">{rows}</ul>' if names else "<p>None. Set the key of a provider.</p>"


def _with_base(text: str, url: str) -> str:
    """`text` in HTML, with `url` in an element whose text the browser replaces by the URL that it uses."""
    return html.escape(text).replace(html.escape(url), f"<span data-base>{html.escape(url)}</span>")


blueprint.add_route(index, "/", methods=READ, name="index")
blueprint.add_route(docs, "/docs", methods=READ, name="docs")
for _path in (*admission.PAGE_FILES, *admission.DOCS_FILES):
    serve_file(blueprint, _path, _path.rpartition("/")[2])
