"""The `usageMetadata` objects of Gemini's API -> tokens, and back. Pure.

Gemini counts thoughts apart from the answer (`candidatesTokenCount`), and cached tokens as part of the
prompt. A stream reports cumulatively, mostly in each of its frames.
https://ai.google.dev/api/generate-content#UsageMetadata
"""

from __future__ import annotations

from collections.abc import Mapping

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai.usage import Usage, recorded, whole

# https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse#TrafficType
_TIERS: Mapping[object, str] = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}


def usage_of(fields: JsonMapping) -> Usage:
    """The tokens in a `usageMetadata` object. Fields that are no numbers count as 0."""
    thoughts = whole(fields.get("thoughtsTokenCount"))
    usage = Usage(
        input=whole(fields.get("promptTokenCount")) + whole(fields.get("toolUsePromptTokenCount")),
        output=whole(fields.get("candidatesTokenCount")) + thoughts,
        cached=whole(fields.get("cachedContentTokenCount")),
        reasoning=thoughts,
    )
    given = [*_modalities(fields, "promptTokensDetails"), *_modalities(fields, "toolUsePromptTokensDetails")]
    made = _modalities(fields, "candidatesTokensDetails")
    if not (given or made):
        return usage
    return usage._replace(
        audio_input=sum(tokens for kind, tokens in given if kind == "AUDIO"),
        image_input=sum(tokens for kind, tokens in given if kind == "IMAGE"),
        audio_output=sum(tokens for kind, tokens in made if kind == "AUDIO"),
        image_output=sum(tokens for kind, tokens in made if kind == "IMAGE"),
    )


def _modalities(fields: JsonMapping, name: str) -> list[tuple[str, int]]:
    """The tokens of audio and images in a list of details, a pair each. A stream has one in most frames."""
    details = fields.get(name)
    if not isinstance(details, list):
        return []
    return [
        (entry["modality"], whole(entry.get("tokenCount")))
        for entry in details
        if isinstance(entry, dict) and entry.get("modality") in ("AUDIO", "IMAGE")
    ]


def recorded_usage(response: JsonMapping) -> Json:
    """The usage of a response as records keep it, with its tier and the searches that it reports."""
    fields = response["usageMetadata"]
    usage = usage_of(fields)
    searches = _searches(response.get("candidates"))
    if not searches and "trafficType" not in fields and "serviceTier" not in fields:
        return usage.as_chat()
    traffic, tier = fields.get("trafficType"), fields.get("serviceTier")
    tier = tier.lower() if isinstance(tier, str) else _TIERS.get(traffic if isinstance(traffic, str) else "")
    return recorded(usage, fields, service_tier=tier, server_tools={"web_search_requests": searches})


def _searches(candidates: object) -> int:
    """The queries of Google Search that the answer is grounded with."""
    found = 0
    for candidate in candidates if isinstance(candidates, list) else ():
        if isinstance(candidate, dict) and "groundingMetadata" in candidate:
            grounding = candidate["groundingMetadata"]
            queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
            found += len(queries) if isinstance(queries, list) else 0
    return found


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
