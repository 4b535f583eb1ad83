"""OpenAI's Responses API in both directions."""

from sanic_proxy.translation.responses.format import ResponsesFormat

__all__ = ["ResponsesFormat"]
