"""The paths of Azure OpenAI's dated versions: the model is a deployment in the path.

https://learn.microsoft.com/azure/ai-foundry/openai/reference. Those of its undated version are aliases of
OpenAI's (`methods.add_route`).
"""

from __future__ import annotations

from urllib.parse import unquote

from sanic.exceptions import NotFound

from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import ROWS
from sanic_proxy.routes import chat
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.passthrough import pass_on
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply

blueprint = Blueprint("deployments")

_CHAT = "/chat/completions"
_ROWS = {row.path: row for row in ROWS if row.method == "POST" and row.body == "json" and not row.is_stateful}


async def deployment(request: ProxyRequest, call: str) -> Reply | None:
    """Answer a request to a deployment, whose name is the model's."""
    path = f"/{unquote(call)}"
    end = next((end for end in (_CHAT, *_ROWS) if path.endswith(end)), None)
    if end is None:
        raise NotFound("No such route")
    fields = _with_model(request, path.removesuffix(end).removeprefix("/"))
    if end != _CHAT:
        return await pass_on(request, _ROWS[end])
    body, request.body = request.body, b""
    return await chat.answer_to(request, CHAT, CHAT.parse(body, fields, request.model_span))


def _with_model(request: ProxyRequest, model: str) -> Json:
    """The fields of the body, which are made to name the model."""
    fields = bodies.json_object(request)
    if fields.get("model") != model:
        fields["model"] = model
        request.body, request.model_span = codec.dumps(fields), None
    return fields


blueprint.add_route(deployment, "/openai/deployments/<call:path>", methods=["POST"], name="deployment")
