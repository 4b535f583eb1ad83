"""What RFC 9110 and 9112 demand of a request's head beyond what a parser checks. Pure functions.

llhttp checks the syntax of lines and lengths. It does not know which transfer codings its user implements,
what a host may look like, or which form of target goes with which method. Another server in front of this
one may read such a request differently: it is refused, and its connection closed.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from sanic_proxy.errors import ClientError, InvalidRequest

# RFC 3986's reg-name without the characters that no host name has; a comma would hide a second host.
_NAME = re.compile(r"[A-Za-z0-9._~!$&'()*+;=%-]+")
_AUTHORITY = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")


def check_transfer_coding(value: str, *, version: str, is_repeated: bool) -> None:
    """Raises a ClientError for any `Transfer-Encoding` but `chunked`, once, in HTTP/1.1 (RFC 9112, 6.1)."""
    if version == "1.0":
        raise _malformed("Transfer-Encoding is not allowed in an HTTP/1.0 request")
    codings = [coding.strip().lower() for coding in value.split(",")]
    if is_repeated or "" in codings or codings[-1] != "chunked" or codings.count("chunked") > 1:
        raise _malformed("Invalid Transfer-Encoding: only `chunked` is supported, given once")
    if len(codings) > 1:
        raise ClientError(
            f"Unsupported transfer coding {codings[0][:40]!r}: only `chunked` is supported",
            status=501,
            code="not_implemented",
        )


def check_host(value: str | None, *, version: str, is_repeated: bool) -> None:
    """Raises InvalidRequest unless there is one valid `Host` (RFC 9112, 3.2); HTTP/1.0 needs none."""
    if value is None:
        if version != "1.0":
            raise _malformed("The Host header is missing")
    elif is_repeated:
        raise _malformed("The request has more than one Host header")
    elif not is_host(value):
        raise _malformed("The Host header is not a valid host name or address with an optional port")


@lru_cache(maxsize=1024)  # clients send the same few with each request
def is_host(value: str) -> bool:
    """Whether `value` is a host name, an IPv4 address or a bracketed IPv6 address, with an optional port."""
    if value.startswith("["):
        address, bracket, rest = value[1:].partition("]")
        return bool(bracket) and _is_ipv6(address) and (not rest or (rest[0] == ":" and _is_port(rest[1:])))
    name, _, port = value.partition(":")
    return _NAME.fullmatch(name) is not None and _is_port(port)


def _is_port(text: str) -> bool:
    return text == "" or (len(text) <= 5 and text.isascii() and text.isdigit() and int(text) < 65536)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text.partition("%25")[0])
    except ValueError:
        return False
    return True


def host_in_target(target: bytes, method: str) -> str | None:
    """The host that an absolute-form target names, which takes the place of `Host` (RFC 9112, 3.2.2).

    None for a path. Raises InvalidRequest for a target that does not fit the method: `*` is for OPTIONS
    only, `host:port` for CONNECT, and other schemes than http and https are for forward proxies.
    """
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS"):
        return None
    found = _AUTHORITY.match(target)
    if found is None:
        kind = "scheme" if _SCHEME.match(target) else "form"
        raise _malformed(f"Invalid request target: this {kind} is not supported for {method[:20]}")
    host = found[1].decode("latin-1")
    if not is_host(host):  # a user name before the host included
        raise _malformed("Invalid request target: its host is not a valid host name or address")
    return host


def _malformed(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="bad_request")
