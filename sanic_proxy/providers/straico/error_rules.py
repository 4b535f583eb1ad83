"""What Straico's own error texts mean, as data, and the errors for answers that do not fit their request."""

from __future__ import annotations

import re

from sanic_proxy.errors import (
    ContextLengthExceeded,
    InsufficientQuota,
    UpstreamBadResponse,
    UpstreamRejected,
    UpstreamUnavailable,
)
from sanic_proxy.upstream.error_parser import Rule

# The catch-all for any failure of a vendor: it names moderation, context and load together, so it
# proves none of them. It has been seen without saying whether as an error or as the answer's text.
WARNING = re.compile(r"\s*\**Warning:?\**:? *It seems we couldn['’]t process your request", re.IGNORECASE)

_VENDOR_FAILURES = frozenset({500, 502, 503})
_DAILY_LIMIT = re.compile(r"\bdaily\b.{0,200}\blimit", re.IGNORECASE | re.DOTALL)
# A limit on the request's own size, or on its pace, is no quota: shortening or waiting helps there.
_USED_UP = re.compile(
    r"\A(?!.*\b(?:rate|requests?|tokens?|max_tokens|context|length|words?)\b).*\blimit\b.{0,200}(?:reached|exceed)",
    re.IGNORECASE | re.DOTALL,
)
# Outside the catch-all, which names it as one cause among several.
_TOO_LONG = re.compile(
    r"\bExcessively l|\bexceed.{0,40}\bword limit|\bword limit\b.{0,40}\bexceed", re.IGNORECASE
)
_NO_SUCH_MODEL = re.compile(r"\bmodel\b.{0,200}\bnot found", re.IGNORECASE | re.DOTALL)


RULES: tuple[Rule, ...] = (
    # The daily quota comes as a 422 and holds until the next day.
    Rule(frozenset({400, 402, 403, 422, 429}), _DAILY_LIMIT, InsufficientQuota),
    Rule(frozenset({422}), _USED_UP, InsufficientQuota),
    Rule(frozenset({400, 404, 422}), _NO_SUCH_MODEL, UpstreamRejected, status=404),
    Rule(frozenset({404}), None, UpstreamRejected),
    Rule(_VENDOR_FAILURES, WARNING, UpstreamUnavailable),
    Rule(_VENDOR_FAILURES | {400, 413, 422}, _TOO_LONG, ContextLengthExceeded),
)


class UnfitAnswer(UpstreamBadResponse):
    """The model did not do what the request demands, though it was asked twice.

    Each try has cost coins, so clients are told not to try by themselves.
    """

    retryable = False
    blames_target = False


class ViolatedToolChoice(UnfitAnswer):
    """No call where there had to be one, or one of another function."""

    code = "upstream_violated_tool_choice"


class InvalidArguments(UnfitAnswer):
    """The arguments of a strict tool's call do not fit its schema."""

    code = "upstream_invalid_arguments"


class InvalidJson(UnfitAnswer):
    """The answer is not the JSON that `response_format` asked for."""

    code = "upstream_invalid_json"
