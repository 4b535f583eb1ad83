"""Meanings of Straico's error texts, as data, and the errors for answers that violate their request."""

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

# Straico's message for any failure of a vendor. It names moderation, context and load together, so it proves
# none of them. Sources do not say whether it comes as an error or as the text of an answer.
WARNING = re.compile(r"\s*\**Warning:?\**:? *It seems we couldn['’]t process your request", re.IGNORECASE)

_VENDOR_FAILURES = frozenset({500, 502, 503})
_DAILY_LIMIT = re.compile(r"\bdaily\b.{0,200}\blimit", re.IGNORECASE | re.DOTALL)
# A limit of the request's size or rate is not a quota: a shorter or later request succeeds.
_USED_UP = re.compile(
    r"\A(?!.*\b(?:rate|requests?|tokens?|max_tokens|context|length|words?)\b).*\blimit\b.{0,200}(?:reached|exceed)",
    re.IGNORECASE | re.DOTALL,
)
# Texts other than the general message, which names this as one cause among several.
_TOO_LONG = re.compile(
    r"\bExcessively l|\bexceed.{0,40}\bword limit|\bword limit\b.{0,40}\bexceed", re.IGNORECASE
)
_NO_SUCH_MODEL = re.compile(r"\bmodel\b.{0,200}\bnot found", re.IGNORECASE | re.DOTALL)


RULES: tuple[Rule, ...] = (
    # The daily quota is reported as a 422 and lasts until the next day.
    Rule(frozenset({400, 402, 403, 422, 429}), _DAILY_LIMIT, InsufficientQuota),
    Rule(frozenset({422}), _USED_UP, InsufficientQuota),
    Rule(frozenset({400, 404, 422}), _NO_SUCH_MODEL, UpstreamRejected, status=404),
    Rule(frozenset({404}), None, UpstreamRejected),
    Rule(_VENDOR_FAILURES, WARNING, UpstreamUnavailable),
    Rule(_VENDOR_FAILURES | {400, 413, 422}, _TOO_LONG, ContextLengthExceeded),
)


class UnfitAnswer(UpstreamBadResponse):
    """The model violated the request in two answers in a row.

    Each attempt has cost coins, so clients are asked not to retry.
    """

    retryable = False
    blames_target = False


class ViolatedToolChoice(UnfitAnswer):
    """A required call is missing, or another function was called."""

    code = "upstream_violated_tool_choice"


class InvalidArguments(UnfitAnswer):
    """The arguments of a strict tool's call do not match its schema."""

    code = "upstream_invalid_arguments"


class InvalidJson(UnfitAnswer):
    """The answer is not the JSON that `response_format` requires."""

    code = "upstream_invalid_json"
