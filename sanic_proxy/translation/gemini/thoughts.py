"""Reasoning of other providers on its way through a client of Gemini's API. Pure.

Gemini signs its reasoning in the field `thoughtSignature` of the part behind it, mostly of a function call;
at the end of an answer, of a text without characters. Clients return the parts as they were, but many leave
out the thoughts themselves (gemini-cli does). So what another provider needs to accept its reasoning back,
its text included, travels in the same place. The field holds bytes, in JSON as base64: it is the base64 of
a text that `signatures.wrapped` made, whose value is a list in JSON of `[text, signature, is redacted, is a
summary]` for each piece of reasoning.
"""

from __future__ import annotations

import binascii
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Sequence

from sanic_proxy.openai import codec
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import Reasoning

# Accepted in place of the signature of a call that has none: the call is another model's.
# https://ai.google.dev/gemini-api/docs/thought-signatures
SKIPPED_SIGNATURE = "skip_thought_signature_validator"


def signature_of(pieces: Sequence[Reasoning]) -> str | None:
    """The `thoughtSignature` with those of `pieces` that their provider needs back; None if there are none.

    All pieces of one answer are of the same provider.
    """
    signed = [piece for piece in pieces if piece.signature and piece.origin]
    if not signed:
        return None
    value = [[piece.text, piece.signature, piece.is_redacted, piece.is_summary] for piece in signed]
    return b64encode(signatures.wrapped(signed[0].origin, codec.dumps(value).decode()).encode()).decode()


def is_marked(signature: object) -> bool:
    """Whether `signature_of` made it."""
    return _marked(signature) is not None


def pieces_of(signature: str) -> list[Reasoning] | None:
    """The reasoning in what `signature_of` made; None for any other signature."""
    if (marked := _marked(signature)) is None:
        return None
    origin, value = marked
    pieces = codec.loads_tolerant(value.encode("utf-8", "surrogatepass"))
    return [
        Reasoning(text, signed, origin, is_redacted=is_redacted is True, is_summary=is_summary is True)
        for text, signed, is_redacted, is_summary in (
            piece for piece in (pieces if isinstance(pieces, list) else ()) if _is_piece(piece)
        )
    ]


def _is_piece(piece: object) -> bool:
    return isinstance(piece, list) and len(piece) == 4 and all(isinstance(text, str) for text in piece[:2])


def _marked(signature: object) -> tuple[str, str] | None:
    """The origin and value of a signature of ours. Some clients write base64 in its alphabet for URLs."""
    if not isinstance(signature, str):
        return None
    plain = signature.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        text = urlsafe_b64decode(plain + "=" * (-len(plain) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        return None
    return signatures.unwrapped(text)
