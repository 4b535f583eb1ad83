"""What a provider's base URL may be. Pure."""

from __future__ import annotations

import re
import urllib.parse

# What follows a base URL, and is sometimes pasted with it.
ENDPOINTS = re.compile(r"/(?:chat/completions|completions|embeddings|models|responses|messages)/*\Z")


def url_fault(url: str) -> str | None:
    """Why `url` cannot be a base URL; None if it can."""
    fault = "expected an http or https URL without user, query or fragment"
    try:
        parts = urllib.parse.urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return fault
    is_plain = (
        not (parts.query or parts.fragment or parts.username is not None) and url.isascii() and " " not in url
    )
    return None if is_good and is_plain else fault


def without_password(url: str) -> str:
    """A URL as a message may show it."""
    return re.sub(r"//[^/@]*@", "//***@", url)[:80]


def passwords_in(url: str) -> frozenset[str]:
    """The password of a URL, as it is written there and as it is meant."""
    try:
        password = urllib.parse.urlsplit(url).password or ""
    except ValueError:
        return frozenset()
    return frozenset({password, urllib.parse.unquote(password)}) - {""}
