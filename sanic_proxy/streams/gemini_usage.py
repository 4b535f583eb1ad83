"""The `usageMetadata` objects of Gemini's API -> tokens, and back. Pure.

Gemini counts thoughts apart from the answer (`candidatesTokenCount`), and cached tokens as part of the
prompt. A stream reports cumulatively, mostly in each of its frames.
https://ai.google.dev/api/generate-content#UsageMetadata
"""

from __future__ import annotations

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai.usage import Usage, whole


def usage_of(fields: JsonMapping) -> Usage:
    """The tokens in a `usageMetadata` object. Fields that are no numbers count as 0."""
    thoughts = whole(fields.get("thoughtsTokenCount"))
    return Usage(
        input=whole(fields.get("promptTokenCount")) + whole(fields.get("toolUsePromptTokenCount")),
        output=whole(fields.get("candidatesTokenCount")) + thoughts,
        cached=whole(fields.get("cachedContentTokenCount")),
        reasoning=thoughts,
    )


def usage_fields(usage: Usage) -> Json:
    """A `usageMetadata` object. Counts of cached tokens and thoughts are there where they are not 0."""
    fields = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(0, usage.output - usage.reasoning),
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cached:
        fields["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        fields["thoughtsTokenCount"] = usage.reasoning
    return fields
