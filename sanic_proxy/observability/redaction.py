"""Removes from content that is captured what must not be kept: keys, and the bytes of files. Pure.

Three rules, on any text: secrets of the settings, as they are and as they stand in JSON; what looks like a
key of a vendor, a Bearer token or a key in a URL; long runs of base64, which become their hash and size. A
key that a model writes over several frames of a stream is not recognised.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable

from sanic_proxy.errors import REDACTED

Clean = Callable[[str], str]

# Shorter runs are words, ids and signatures; an image in a `data:` URL is recognised at any length.
MIN_BASE64_CHARS = 512
# A run of fewer different characters is a line of dashes or the like.
MIN_BASE64_ALPHABET = 16

# Prefixes of the keys of vendors and of the proxy's own, and what else announces a secret.
_KEY = re.compile(
    r"\b(?:sk|pk|rk|gsk|csk|xai|nvapi|pplx|ghp|gho|hf|r8|tgp|glpat)[-_][A-Za-z0-9_-]{8,}"
    r"|\bAIza[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|(?i:\bbearer\s+)[A-Za-z0-9._~+/-]{8,}=*"
    r"|(?i:(?<=[?&]key=)|(?<=api_key=)|(?<=apikey=)|(?<=_token=))[^&\s\"'\\]{8,}"
)
_BASE64 = re.compile(
    rf"(?<=;base64,)[A-Za-z0-9+/_-]+={{0,2}}|(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{MIN_BASE64_CHARS},}}={{0,2}}"
)
# Fields beside a field `data` that make it base64: in Anthropic's, Google's and OpenAI's shapes.
_MEDIA_FIELDS = frozenset({"media_type", "mime_type", "mimeType", "format"})


def cleaner(secrets: Iterable[str]) -> Clean:
    """A function that removes `secrets`, keys and base64 from a text."""
    known = {form for secret in secrets if secret for form in (secret, json.dumps(secret)[1:-1])}
    pattern = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))) or r"(?!)")

    def clean(text: str) -> str:
        return _BASE64.sub(_described, _KEY.sub(REDACTED, pattern.sub(REDACTED, text)))

    return clean


def cleaned(value: object, clean: Clean, max_chars: int) -> object:
    """A JSON value with all its texts cleaned, and cut to `max_chars` characters."""
    if isinstance(value, str):
        text = clean(value)
        return text if len(text) <= max_chars else f"{text[:max_chars]}[{len(text) - max_chars} more]"
    if isinstance(value, list):
        return [cleaned(item, clean, max_chars) for item in value]
    if isinstance(value, dict):
        data = value.get("data")
        if isinstance(data, str) and not _MEDIA_FIELDS.isdisjoint(value):
            value = {**value, "data": described(data)}
        return {clean(name): cleaned(item, clean, max_chars) for name, item in value.items()}
    return value


def described(text: str) -> str:
    """What is kept of base64: the SHA-256 and the size of the bytes that it stands for."""
    try:
        data = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_")
    except ValueError:
        data = text.encode("utf-8", "surrogatepass")
    return f"[sha256:{hashlib.sha256(data).hexdigest()} {len(data)} bytes]"


def _described(run: re.Match[str]) -> str:
    text = run[0]
    is_url = run.string.endswith(";base64,", 0, run.start())
    return described(text) if is_url or len(set(text)) >= MIN_BASE64_ALPHABET else text
