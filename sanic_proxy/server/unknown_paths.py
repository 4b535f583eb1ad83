"""Paths that the proxy does not offer: what to use instead, in an error that the client can read. Pure.

Two mistakes are common: a base URL with one `/v1` too many or too few, and a client for another API
(Anthropic's, Gemini's, Ollama's, Azure's). Such a client reads errors of its own API's shape only, and would
show an OpenAI error object as "unknown error". So the path decides the shape of every error below it, also
of a missing key, and the message of a 404 names the request that does the same here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.gemini import GEMINI
from sanic_proxy.dialects.messages import MESSAGES
from sanic_proxy.dialects.registry import dialect_for
from sanic_proxy.errors import ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import ROWS

# Below `/v1`. The names of resources (`<id>`) may hold slashes in `/models/<id>` only.
OFFERED = (
    "/chat/completions",
    "/messages",
    "/messages/count_tokens",
    "/models",
    "/responses",
    "/responses/compact",
    "/responses/input_tokens",
    "/responses/<id>",
    "/responses/<id>/cancel",
    "/responses/<id>/input_items",
    "/models/<id>",
    "/model/info",
    "/usage",
    *dict.fromkeys(row.path for row in ROWS),
)
_OFFERED = re.compile(
    "|".join(path.replace("/models/<id>", "/models/.+").replace("<id>", "[^/]+") for path in OFFERED)
)
_MODEL = re.compile(r"/(?:models|deployments)/([\w.@-]+)", re.IGNORECASE)
# Longer paths are not looked at further, nor repeated whole.
_MAX_CHARS = 200


def error_body(path: str, error: ProxyError) -> bytes:
    """`error` in the shape of the API that `path` belongs to, whether or not the proxy offers that API."""
    if (api := _api_of(path)) is not None:
        return api.body(error)
    plain = _plain(path)
    dialect = dialect_for(plain)
    if dialect is CHAT and (offered := _offered_in(path)) is not None:
        dialect = dialect_for(f"/v1{offered}")
    return dialect.error_body(error)


def is_foreign(path: str) -> bool:
    """Whether `path` belongs to an API that is not offered."""
    return _api_of(path) is not None


def advice(method: str, path: str, url: str) -> str:
    """The message of a 404. `url` is the address of the proxy, without a path."""
    base = f"{url}/v1"
    problem = f"There is no {method} {path[:_MAX_CHARS]!r} here"
    if (api := _api_of(path)) is not None:
        verb, instead = _replacement(path)
        found = _MODEL.search(_plain(path))
        model = "" if found is None else f' and `"model": "{found[1]}"` in its body'
        return (
            f"{problem}: the proxy does not offer {api.name}. Use {verb} {base}{instead}{model}, by a client "
            f"for OpenAI's API with the base URL {base}"
        )
    if (offered := _offered_in(path)) is not None:
        of_client = url if offered.startswith(MESSAGES.path) else base
        return f"{problem}. Use {base}{offered}: the client's base URL has to be {of_client}"
    near = get_close_matches(_plain(path).removeprefix("/v1"), OFFERED, 1, 0.8)
    if near:
        return f"{problem}. Did you mean {base}{near[0]}?"
    return f"{problem}. The client's base URL has to be {base}; {url}/docs lists all routes"


def _plain(path: str) -> str:
    """`path` in lower case, with repeated slashes and repeated `/v1` taken out."""
    text = re.sub(r"/+", "/", path[:_MAX_CHARS]).rstrip("/")
    return re.sub(r"^(/v1)+(?=/)", "/v1", text, flags=re.IGNORECASE)


def _offered_in(path: str) -> str | None:
    """The longest end of `path` that is offered."""
    names = _plain(path).strip("/").split("/")
    ends = ("/" + "/".join(names[start:]) for start in range(len(names)))
    return next((end for end in ends if _OFFERED.fullmatch(end)), None)


def _replacement(path: str) -> tuple[str, str]:
    """The method and path that do the same as a request to another API."""
    plain = _plain(path).lower()
    if "embed" in plain:
        return "POST", "/embeddings"
    if plain.endswith(("/models", "/tags", "/show", "/ps")):
        return "GET", "/models"
    offered = _offered_in(path)
    return "POST", "/chat/completions" if offered is None or offered.startswith("/models/") else offered


# The shapes of errors


def _ollama(error: ProxyError) -> bytes:
    return codec.dumps({"error": error.message})


@dataclass(frozen=True, slots=True)
class _Api:
    """An API that is not offered: the paths that only it has, and its errors' shape."""

    name: str
    pattern: re.Pattern[str]
    body: Callable[[ProxyError], bytes]


def _paths(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_APIS = (
    _Api(
        "Anthropic's Messages API",
        _paths(r"(/anthropic)?(/v1)?/(messages/batches.*|complete)"),
        MESSAGES.error_body,
    ),
    _Api("OpenAI's Assistants API", _paths(r"(/openai)?(/v1)?/(threads|assistants)(/.*)?"), CHAT.error_body),
    _Api(
        "these paths of Gemini's API",
        _paths(
            r"/gemini/v1beta/.*|(/gemini)?/v1(alpha|beta\d)(?!/openai/)(/.*)?/models(/[^/]+)?"
            r"|/v1beta/(?!models|openai/).*|/v1/projects/.*/models/[^/:]+:\w+"
        ),
        GEMINI.error_body,
    ),
    _Api(
        "this path of Azure's deployments",
        _paths(r"/openai/deployments/[^/]+/.*"),
        CHAT.error_body,
    ),
    _Api(
        "Ollama's API",
        _paths(
            r"/api/(chat|generate|tags|embed|embeddings|show|ps|version|pull|push|create|copy|delete|blobs/.*)"
        ),
        _ollama,
    ),
)


def _api_of(path: str) -> _Api | None:
    plain = _plain(path)
    return next((api for api in _APIS if api.pattern.fullmatch(plain)), None)
