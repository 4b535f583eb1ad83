"""Faults of a provider, selected by model name, and what a client gets of each."""

from __future__ import annotations

from dataclasses import dataclass

BAD = "502 upstream_bad_response"


EMPTY = "502 upstream_empty_response"


REFUSED = "429 rate_limit_exceeded"


@dataclass(frozen=True, slots=True)
class Case:
    """A row, a fault, and what comes of it for a whole answer and for a stream ("": not tested)."""

    row: int
    fault: str
    whole: str
    streamed: str


def framed(row: int, fault: str, streamed: str) -> Case:
    """A fault of frames, which a request for a whole answer does not get to see."""
    return Case(row, fault, "", streamed)


CASES = (
    Case(1, "mistral/good", "502 upstream_connect_error", "502 upstream_connect_error"),
    Case(2, "xai/good", "504 upstream_timeout", "cut upstream_timeout"),
    Case(3, "deepseek/good", "502 upstream_dns_error", "502 upstream_dns_error"),
    Case(4, "together/good", "502 upstream_tls_error", "502 upstream_tls_error"),
    Case(4, "fireworks/good", "502 upstream_tls_error", "502 upstream_tls_error"),
    Case(5, "good;hush=0", "504 upstream_timeout", "cut upstream_timeout"),
    Case(6, "good;hush=90", "504 upstream_timeout", "cut upstream_timeout"),
    Case(6, "good;hush=400", "504 upstream_timeout", "cut upstream_timeout"),
    Case(6, "comments;pause=0.2", "504 upstream_timeout", "cut upstream_timeout"),
    Case(7, "good;pause=0.3", "whole", "whole"),
    Case(7, "good;step=40;pause=0.02", "whole", "whole"),
    Case(8, "good;cut=400;by=rst", "502 upstream_disconnected", "502 upstream_disconnected"),
    framed(8, "good;cut=700;by=rst", "cut upstream_disconnected"),
    Case(8, "good;cut=0;by=rst", "502 upstream_disconnected", "502 upstream_disconnected"),
    Case(9, "good;cut=400", "502 upstream_disconnected", "502 upstream_disconnected"),
    framed(9, "good;cut=700", "cut upstream_disconnected"),
    Case(9, "until-close;cut=400", BAD, "502 upstream_disconnected"),
    framed(9, "until-close;cut=700", "cut upstream_disconnected"),
    framed(9, "half-frame", "cut upstream_disconnected"),
    framed(9, "no-end", "cut upstream_disconnected"),
    framed(9, "empty-reasons", "cut upstream_disconnected"),
    framed(9, "null-reasons", "cut upstream_disconnected"),
    framed(10, "no-done", "whole"),
    framed(11, "after-done", "whole"),
    framed(12, "good;step=1", "whole"),
    framed(12, "crlf;step=3", "whole"),
    framed(13, "crlf", "whole"),
    framed(13, "cr", "whole"),
    framed(13, "no-space", "whole"),
    framed(13, "bom", "whole"),
    framed(13, "ids", "whole"),
    framed(13, "multi-line", "whole"),
    framed(13, "with-comments", "whole"),
    framed(13, "data-comment", "whole"),
    framed(13, "ping-event", "whole"),
    framed(13, "padded-done", "whole"),
    framed(14, "huge-frame", "cut upstream_frame_too_large"),
    framed(15, "bad-utf8", "cut upstream_bad_frame"),
    framed(16, "bad-json", "cut upstream_bad_frame"),
    framed(16, "nan", "cut upstream_bad_frame"),
    framed(16, "late-garbage", "whole"),
    framed(17, "lone-surrogate", "whole"),
    framed(17, "large-number", "whole"),
    framed(18, "no-object", "whole"),
    framed(18, "empty-object", "whole"),
    framed(18, "no-choices", "whole"),
    framed(18, "empty-choices", "whole"),
    framed(18, "null-delta", "whole"),
    framed(19, "error-frame", "cut scripted"),
    framed(19, "error-event", "cut scripted"),
    framed(19, "error-line", "cut scripted"),
    framed(19, "error-object", "cut upstream_error"),
    framed(19, "bare-error", "cut 20012"),
    framed(19, "finish-error", "cut upstream_error"),
    Case(20, "ok-code", "502 20012", "502 20012"),
    framed(20, "error-as-events", "502 scripted"),
    Case(20, "ok-error", "502 scripted", "502 scripted"),
    framed(21, "json", "whole"),
    framed(21, "json-as-text", "whole"),
    framed(21, "json-as-bytes", "whole"),
    framed(21, "json-as-events", "whole"),
    Case(22, "sse", BAD, ""),
    Case(23, "captive", BAD, BAD),
    Case(23, "empty", BAD, BAD),
    framed(23, "only-done", EMPTY),
    Case(23, "no-choices-whole", EMPTY, EMPTY),
    Case(23, "half-json", BAD, BAD),
    Case(23, "no-completion", BAD, BAD),
    Case(24, "html;code=400", "400 upstream_bad_request", "400 upstream_bad_request"),
    Case(24, "foreign;code=422", "422 upstream_bad_request", "422 upstream_bad_request"),
    Case(25, "status;code=401", "502 upstream_auth_error", "502 upstream_auth_error"),
    Case(25, "html;code=403", "502 upstream_access_denied", "502 upstream_access_denied"),
    Case(26, "foreign;code=404", "404 model_not_found", "404 model_not_found"),
    Case(31, "gzip", "whole", "whole"),
    Case(31, "gzip;step=3", "whole", "whole"),
    Case(31, "deflate", "whole", "whole"),
    Case(31, "gzip-cut", "502 upstream_disconnected", "cut upstream_disconnected"),
    Case(31, "gzip-lie", BAD, BAD),
    Case(31, "br", BAD, BAD),
    Case(31, "bomb", BAD, BAD),
    Case(32, "redirect", "502 upstream_redirect", "502 upstream_redirect"),
    *(
        Case(33, name, BAD, BAD)
        for name in (
            *("long-header", "many-headers", "obs-fold", "cl-and-te", "two-lengths", "bad-length"),
            *("bad-chunk", "bad-status", "no-http", "http2", "switching"),
        )
    ),
    Case(33, "interim", "whole", "whole"),
    framed(37, "odd-tools", "whole"),
    framed(38, "usage-mid", "whole"),
    framed(38, "usage-with-choices", "whole"),
)
