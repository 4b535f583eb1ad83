"""Images, documents and recordings <-> parts with data or a file. Pure."""

from __future__ import annotations

import base64
import mimetypes
from urllib.parse import unquote_to_bytes, urlsplit

from sanic_proxy.json_types import Json
from sanic_proxy.translation.conversation import Audio, Document, Image, Part, Text

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
    """The part of `fileData`; None for a file that only Google can read."""
    parts = urlsplit(uri) if uri[:8].lower().startswith(("https://", "http://")) else None
    if parts is None or parts.hostname in _GOOGLES_HOSTS:
        return None
    kind = media_type or mimetypes.guess_type(parts.path)[0] or ""
    return Image(url=uri) if kind.startswith("image/") else Document(url=uri, name=name)


def written(part: Image | Document | Audio) -> Json | None:
    """The part for a provider; None for a file of another account, or a URL of another scheme."""
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
    if not url[:8].lower().startswith(("https://", "http://")):
        return None
    guessed = mimetypes.guess_type(urlsplit(url).path)[0]
    fallback = "image/jpeg" if isinstance(part, Image) else "application/pdf"
    return {"fileData": {"mimeType": guessed or fallback, "fileUri": url}}
