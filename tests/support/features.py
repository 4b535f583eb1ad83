"""An application that registers Sanic's features on the proxy's, for `tests/server/test_sanic_features`.

`FEATURES` names what is registered for all routes; the routes of its own are always there.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from sanic import Blueprint, HTTPResponse, Request, response
from sanic.exceptions import NotFound, SanicException
from websockets.exceptions import ConnectionClosed

from sanic_proxy.app import create_app
from sanic_proxy.errors import ModelNotFound

FEATURES = frozenset(os.environ.get("FEATURES", "").split(","))

app: Any = create_app(name="features")
app.ctx.seen = []
app.config.WEBSOCKET_MAX_SIZE = 1000
app.config.KEEP_ALIVE = "no-keep-alive" not in FEATURES


@app.route("/seen", methods=["GET"])
async def seen(request: Any) -> HTTPResponse:
    """What signals, tasks, listeners and middlewares have noted in this worker."""
    return response.json(app.ctx.seen)


# Requests and responses


@app.post("/inspect/<name:str>")
async def inspect(request: Any, name: str) -> HTTPResponse:
    request.headers["x-set"] = "by the handler"
    request.ctx.note = name
    files = {
        key: file.body.decode() for key, file in ((k, request.files.get(k)) for k in request.files or ())
    }
    answer = response.json(
        {
            "args": dict(request.args),
            "cookies": {key: request.cookies.get(key) for key in request.cookies},
            "ctx": request.ctx.note,
            "current": Request.get_current() is request,
            "files": files,
            "form": dict(request.form or {}),
            "head": request.head.decode().split("\r\n")[0],
            "id": str(request.id),
            "ip": request.ip,
            "json": request.json if request.content_type == "application/json" else None,
            "match": request.match_info,
            "name": request.name,
            "set": request.headers["X-Set"],
            "token": request.token,
            "twice": request.headers.getall("x-twice", []),
        },
        headers={"x-from": "handler"},
    )
    answer.headers["x-later"] = "yes"
    answer.add_cookie("flavour", "oat", secure=False)
    return answer


@app.get("/respond")
async def respond(request: Any) -> None:
    answer = await request.respond(content_type="text/csv", headers={"x-parts": "2"})
    await answer.send("a,")
    await answer.send("b")
    await answer.eof()


@app.get("/sized")
async def sized(request: Any) -> None:
    answer = await request.respond(headers={"content-length": "4"})
    await answer.send("ab")
    await answer.send("cd")
    await answer.eof()


@app.get("/file")
async def file(request: Any) -> HTTPResponse:
    return await response.file(__file__, mime_type="text/x-python")


@app.get("/file_stream")
async def file_stream(request: Any) -> Any:
    return await response.file_stream(__file__, chunk_size=100)


@app.get("/empty")
def empty(request: Any) -> HTTPResponse:
    return response.empty()


@app.get("/redirect")
def redirect(request: Any) -> HTTPResponse:
    return response.redirect("/empty")


@app.get("/nothing")
async def nothing(request: Any) -> None:
    """A handler that forgets its answer."""


@app.post("/stream", stream=True)
async def stream(request: Any) -> HTTPResponse:
    sizes: list[int] = []
    while (piece := await request.stream.read()) is not None:
        sizes.append(len(piece))
    return response.json({"size": sum(sizes), "largest": max(sizes, default=0)})


@app.post("/iterate", stream=True)
async def iterate(request: Any) -> HTTPResponse:
    return response.json({"size": sum([len(piece) async for piece in request.stream])})


app.static("/static", Path(__file__).parent, name="support")


# Errors


class OwnError(Exception):
    pass


@app.exception(OwnError)
async def own_error(request: Any, exception: OwnError) -> HTTPResponse:
    return response.text("own", status=418)


@app.exception(ModelNotFound)
async def model_not_found(request: Any, exception: ModelNotFound) -> HTTPResponse:
    return response.text("no such model", status=404)


if "catch-all" in FEATURES:

    @app.exception(Exception)
    async def everything(request: Any, exception: Exception) -> HTTPResponse:
        return response.text("caught", status=500)


@app.get("/raise/<kind:str>")
async def fail(request: Any, kind: str) -> None:
    raise {"own": OwnError(), "bug": ZeroDivisionError(), "sanic": SanicException("x", status_code=409)}[kind]


# Routing

one = Blueprint("one", url_prefix="/one", version=2)


@one.get("/route")
async def grouped(request: Any) -> HTTPResponse:
    return response.text("grouped")


@one.on_request
async def only_one(request: Any) -> None:
    app.ctx.seen.append("blueprint")


app.blueprint(Blueprint.group(one, url_prefix="/api"))

if "hosts" in FEATURES:

    @app.get("/host", host="a.localhost")
    async def host_a(request: Any) -> HTTPResponse:
        return response.text("a")

    @app.get("/host", host="b.localhost", name="host_b")
    async def host_b(request: Any) -> HTTPResponse:
        return response.text("b")


# Middlewares

if "middleware" in FEATURES:

    @app.on_request(priority=1)
    async def second(request: Any) -> None:
        request.ctx.order = [*getattr(request.ctx, "order", ()), "second"]

    @app.on_request(priority=2)
    def first(request: Any) -> None:
        request.ctx.order = [*getattr(request.ctx, "order", ()), "first"]
        if provider := request.headers.get("x-choose"):
            request.headers["x-provider"] = provider

    @app.on_request
    async def early(request: Any) -> HTTPResponse | None:
        await asyncio.sleep(0)
        return response.text("early") if "x-early" in request.headers else None

    @app.on_response
    async def mark(request: Any, answer: HTTPResponse) -> None:
        await asyncio.sleep(0.05)  # longer than a stream takes to bring more
        answer.headers["x-order"] = ",".join(getattr(request.ctx, "order", ["none"]))
        answer.headers["x-status"] = str(answer.status)
        answer.headers["x-type"] = answer.headers.get("content-type") or str(answer.content_type)
        answer.add_cookie("seen", "1", secure=False)

    @app.on_response
    async def replace(request: Any, answer: HTTPResponse) -> HTTPResponse | None:
        if "x-replace" not in request.headers:
            return None
        return HTTPResponse(b"replaced", status=202, headers={"x-replaced": "yes"})


# Signals

HTTP_SIGNALS = (
    *("http.lifecycle.begin", "http.lifecycle.read_head", "http.lifecycle.request", "http.lifecycle.handle"),
    *("http.routing.before", "http.routing.after", "http.lifecycle.read_body", "http.handler.before"),
    *("http.handler.after", "http.lifecycle.response", "http.lifecycle.send", "http.lifecycle.complete"),
    *("http.lifecycle.exception", "server.exception.report"),
)


def _note(event: str) -> None:
    @app.signal(event)
    async def note(**context: Any) -> None:
        app.ctx.seen.append(event)
        if isinstance(context.get("head"), bytes):
            app.ctx.seen.append(context["head"].split(b" ")[1].decode())


if "signals" in FEATURES:
    for name in HTTP_SIGNALS:
        _note(name)


@app.signal("shop.order.<thing>")
async def ordered(thing: str, **context: Any) -> None:
    app.ctx.seen.append(f"{thing}:{context['size']}")


@app.signal("shop.stock.low")
async def low(**context: Any) -> None:
    app.ctx.seen.append("low")


async def wait_for_stock() -> None:
    await app.event("shop.stock.low")
    app.ctx.seen.append("waited")


@app.get("/dispatch")
async def dispatch(request: Any) -> HTTPResponse:
    waiting = app.add_task(wait_for_stock(), name="waits")
    await app.dispatch("shop.order.tea", context={"size": 3}, inline=True)
    while "waited" not in app.ctx.seen:
        await app.dispatch("shop.stock.low", inline=True)
        await asyncio.sleep(0.01)
    await waiting
    return response.json(app.ctx.seen)


# The life of a worker


@app.before_server_start
async def before(app: Any) -> None:
    app.ctx.seen.append("before_server_start")


@app.after_server_start
async def after(app: Any) -> None:
    app.ctx.seen.append("after_server_start")


@app.before_server_stop
async def stopping(app: Any) -> None:
    print("before_server_stop called", flush=True)  # noqa: T201


async def background(app: Any) -> None:
    app.ctx.seen.append("task")


app.add_task(background)


@app.get("/worker/<verb:str>")
async def worker(request: Any, verb: str) -> HTTPResponse:
    if verb == "restart":
        app.m.restart()
    elif verb == "restart-all":
        app.m.restart(all_workers=True, zero_downtime=True)
    elif verb == "terminate":
        app.m.terminate()
    elif verb != "pid":
        app.m.scale(int(verb))
    return response.json({"pid": os.getpid()})


@app.get("/amend")
async def amend(request: Any) -> HTTPResponse:
    with app.amend():

        @app.get("/added")
        async def added(request: Any) -> HTTPResponse:
            return response.text("added")

        @app.on_response
        async def on_everything(request: Any, answer: HTTPResponse) -> None:
            answer.headers["x-amended"] = "yes"

    return response.text("amended")


async def _never() -> None:
    await asyncio.Event().wait()


def helper(name: str) -> None:
    """A process that Sanic manages: it logs that it runs, and ends on a signal."""
    print(f"{name} runs", flush=True)  # noqa: T201
    try:
        asyncio.run(_never())
    except KeyboardInterrupt:
        print(f"{name} ends", flush=True)  # noqa: T201


@app.main_process_ready
async def manage(app: Any) -> None:
    if "manage" in FEATURES:
        app.manager.manage("Early", helper, {"name": "early"})


@app.get("/manage")
async def manage_later(request: Any) -> HTTPResponse:
    app.m.manage("Late", helper, {"name": "late"})
    return response.empty()


# Websockets


@app.websocket("/ws", subprotocols=["chat", "echo"])
async def websocket(request: Any, ws: Any) -> None:
    await ws.send(f"{ws.subprotocol}:{request.args.get('q')}")
    try:
        async for message in ws:
            if message == "bye":
                await ws.close(4001, "as you wish")
                return
            await ws.send(message)
    except ConnectionClosed as closed:  # pragma: no cover - depends on who is first
        app.ctx.seen.append(f"closed:{closed}")


@app.exception(NotFound)
async def not_found(request: Any, exception: NotFound) -> HTTPResponse:
    return response.text("nowhere", status=404)
