"""Signatures of reasoning that travel through a client of another API. Pure.

Providers sign their reasoning (Anthropic's `signature` and `data`, OpenAI's `encrypted_content`, Gemini's
thought signatures) and accept it back with that signature only. Clients return what they were given
verbatim, so a signature travels to the client in the place that its API has for one, under a prefix of our
own that names its origin: `sp1.ORIGIN.VALUE`, where VALUE is the signature as base64url of its UTF-8. On
the way back the prefix tells whose it is, and every other provider is spared a signature that it would
reject. A value of any other form is a provider's own and is passed as it is.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

PREFIX = "sp1."


def wrapped(origin: str, value: str) -> str:
    """`value` for a client. An unknown origin ("", or one of `native`) leaves it as it is.

    With an origin, an empty value is wrapped too: it tells whose the reasoning is.
    """
    if not origin or origin.endswith(":"):
        return value
    return f"{PREFIX}{origin}.{urlsafe_b64encode(value.encode('utf-8', 'surrogatepass')).decode()}"


def unwrapped(text: str) -> tuple[str, str] | None:
    """The origin and the value in a text that `wrapped` made; None for any other text."""
    origin, dot, encoded = text.removeprefix(PREFIX).rpartition(".")
    if not text.startswith(PREFIX) or not dot or not origin:
        return None
    try:
        return origin, urlsafe_b64decode(encoded.encode("ascii")).decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeError):
        return None


def without_foreign(values: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    """`values` as `change` makes them, without those that it makes None; the list itself if nothing changes.

    `change` returns a value that it does not change as it is: a request that needs no change is recognised
    by that, and its bytes pass.
    """
    changed = [change(value) for value in values]
    if all(new is old for new, old in zip(changed, values, strict=True)):
        return values
    return [value for value in changed if value is not None]


def native(api: str) -> str:
    """The origin of a signature that a client of `api` returned without a prefix.

    A provider that speaks `api` itself made it, and which one is not known. No provider has such a name.
    """
    return f"{api}:"


def origin_and_value(text: str, api: str) -> tuple[str, str]:
    """The origin and the value of a signature as a client of `api` returned it. No signature, no origin."""
    if not text:
        return "", ""
    return unwrapped(text) or (native(api), text)
