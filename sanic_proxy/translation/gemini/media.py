"""Images, documents and recordings <-> parts with data or a file. Pure."""

from __future__ import annotations

import base64
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from sanic_proxy.json_types import Json
from sanic_proxy.translation.conversation import Audio, Document, Image, Part, Text
from sanic_proxy.translation.media_types import media_type_of

_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
}
# Files of the provider's own account: nobody else can read them.
_GOOGLES_HOSTS = frozenset({"generativelanguage.googleapis.com"})


def of_data(media_type: str, data: str, name: str | None = None) -> Part:
    """The part of `inlineData`. `data` is base64, in either alphabet."""
    kind = media_type.lower()
    plain = data.replace("-", "+").replace("_", "/")
    if kind in _AUDIO_FORMATS:
        return Audio(plain, _AUDIO_FORMATS[kind])
    url = f"data:{media_type};base64,{plain}"
    if kind.startswith("image/"):
        return Image(url=url)
    if kind.startswith("text/") and (text := _decoded(plain)) is not None:
        return Document(text=text, name=name) if text else Text("")
    return Document(url=url, name=name)


def _decoded(data: str) -> str | None:
    try:
        return base64.b64decode(data).decode()
    except ValueError:
        return None


def of_file(uri: str, media_type: str, name: str | None = None) -> Part | None:
    """The part of `fileData`; None for a file that only Google can read, and for a malformed URL."""
    parts = _web_url(uri)
    if parts is None or parts.hostname in _GOOGLES_HOSTS:
        return None
    kind = media_type or media_type_of(parts.path) or ""
    return Image(url=uri) if kind.startswith("image/") else Document(url=uri, name=name)


def _web_url(url: str) -> SplitResult | None:
    """The parts of a URL of HTTP; None for another scheme, and for a malformed URL."""
    if not url[:8].lower().startswith(("https://", "http://")):
        return None
    try:
        return urlsplit(url)
    except ValueError:
        return None


def written(part: Image | Document | Audio) -> Json | None:
    """The part for a provider; None for a file of another account, and for an unusable URL."""
    if isinstance(part, Audio):
        return {"inlineData": {"mimeType": f"audio/{part.format}", "data": part.data}}
    if isinstance(part, Document) and part.text:
        heading = [line for line in (part.name, part.context) if line]
        return {"text": "\n\n".join([*heading, part.text])}
    url = part.url
    if url[:5].lower() == "data:":
        head, _, data = url[5:].partition(",")
        media_type, *attributes = head.split(";")
        if "base64" not in attributes:
            data = base64.b64encode(unquote_to_bytes(data)).decode()
        return {"inlineData": {"mimeType": media_type or "text/plain", "data": data}}
    if (parts := _web_url(url)) is None:
        return None
    fallback = "image/jpeg" if isinstance(part, Image) else "application/pdf"
    return {"fileData": {"mimeType": media_type_of(parts.path) or fallback, "fileUri": url}}
