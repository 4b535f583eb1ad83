"""Files for browsers: with a tag by which a browser asks again cheaply, and a strict security policy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from sanic import HTTPResponse

from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server.request import ProxyRequest

# Nothing from elsewhere, nothing inline, no frames.
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of `sanic_proxy/pages`, in memory."""

    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, name: str) -> PageFile:
        """The file `name`, a path below `pages`. Raises KeyError for an ending without a content type."""
        body = resources.files("sanic_proxy").joinpath("pages", name).read_bytes()
        return cls.of(body, _TYPES[name.rpartition(".")[2]])

    @classmethod
    def of(cls, body: bytes, content_type: str) -> PageFile:
        """A file that is made of `body`."""
        return cls(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:16]}"')

    def answer(self, request: ProxyRequest) -> HTTPResponse:
        """The file, or 304 if the browser has it. Reverse proxies that compress make its tag a weak one."""
        headers = {**PAGE_HEADERS, "etag": self.etag}
        known = request.fields.get("if-none-match") or ""
        if self.etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return HTTPResponse(status=304, headers=headers)
        return HTTPResponse(self.body, content_type=self.content_type, headers=headers)


def serve_file(blueprint: Blueprint, path: str, name: str) -> None:
    """Serve the file `name` of `sanic_proxy/pages` at `path`."""
    file = PageFile.read(name)

    async def handler(request: ProxyRequest) -> HTTPResponse:
        return file.answer(request)

    blueprint.add_route(handler, path, methods=READ, name=path.strip("/").replace("/", "_").replace(".", "_"))
