"""LiteLLM's provider prefixes, and where their requests go here.

Prefixes, variables and addresses are those of LiteLLM 1.110 (`litellm/constants.py`, `litellm/llms/`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sanic_proxy.config.catalog import ROWS, Row


@dataclass(frozen=True, slots=True)
class Vendor:
    """What a prefix stands for.

    `row` is the provider of our catalog. Another vendor has a `base_url` (None: the file names it) and the
    variables in which LiteLLM looks for the key and the address. `base_suffix` follows an address that is
    given without a path. `note` says where it is not quite what LiteLLM does.
    """

    name: str
    row: Row | None = None
    base_url: str | None = None
    key_variable: str | None = None
    base_variable: str | None = None
    base_suffix: str = ""
    model_prefix: str = ""
    note: str = ""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# LiteLLM's name -> the catalog's, where they differ.
_ROW_NAMES = {
    "gemini": "google",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "nvidia_nim": "nvidia",
    "cohere_chat": "cohere",
    "ollama_chat": "ollama",
    "hosted_vllm": "vllm",
    "lm_studio": "lmstudio",
    "text-completion-openai": "openai",
    "custom_openai": "openai",
    "openai_like": "openai",
}
# The catalog's names of providers that LiteLLM does not have, or has under another name.
_OURS_ONLY = frozenset({"straico", "echo"})
_BASE_VARIABLES = {
    "ollama": "OLLAMA_API_BASE",
    "ollama_chat": "OLLAMA_API_BASE",
    "anthropic": "ANTHROPIC_API_BASE",
    "hosted_vllm": "HOSTED_VLLM_API_BASE",
    "lm_studio": "LM_STUDIO_API_BASE",
}
_DEFAULT_BASES = {"ollama": "http://localhost:11434/v1"}
_MODEL_PREFIXES = {"fireworks_ai": "accounts/fireworks/models/"}
_COMPATIBLE = "by the vendor's OpenAI-compatible endpoint"

# Vendors with an OpenAI-compatible endpoint that are not in the catalog: address and variable.
_OTHERS = {
    "codestral": ("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "deepinfra": ("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "featherless_ai": ("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "friendliai": ("https://api.friendli.ai/serverless/v1", "FRIENDLI_TOKEN"),
    "hyperbolic": ("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "lambda_ai": ("https://api.lambda.ai/v1", "LAMBDA_API_KEY"),
    "meta_llama": ("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "nebius": ("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "nscale": ("https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
}
# Servers that speak OpenAI's protocol, at an address that the file names.
_SERVERS = ("litellm_proxy", "llamafile", "docker_model_runner", "xinference", "vllm", "infinity")

# Prefixes that LiteLLM knows and whose APIs are not spoken here.
UNSUPPORTED = _names(
    "ai21 aiohttp_openai aleph_alpha amazon_nova anyscale assemblyai auto_router aws_polly azure_ai"
    " azure_text baseten bedrock bedrock_converse bytez clarifai cloudflare databricks datarobot deepgram"
    " elevenlabs fal_ai galadriel gigachat github_copilot gradient_ai heroku jina_ai langgraph maritalk"
    " minimax nlp_cloud nvidia_riva oci oobabooga ovhcloud palm petals predibase recraft replicate runwayml"
    " sagemaker sagemaker_chat sap snowflake stability topaz triton vercel_ai_gateway vertex_ai"
    " vertex_ai_beta volcengine voyage watsonx watsonx_text"
)


def _row(name: str) -> Vendor:
    row = next(row for row in ROWS if row.name == _ROW_NAMES.get(name, name))
    return Vendor(
        name=name,
        row=row,
        base_url=row.base_url or _DEFAULT_BASES.get(row.name),
        key_variable=row.key_variable,
        base_variable=_BASE_VARIABLES.get(name),
        base_suffix="/v1" if row.example_url or row.dialects == ("messages",) else "",
        model_prefix=_MODEL_PREFIXES.get(name, ""),
        note=_COMPATIBLE if name in {"ollama", "ollama_chat", "gemini", "cohere", "cohere_chat"} else "",
    )


def _vendors() -> Mapping[str, Vendor]:
    known = {row.name for row in ROWS} - _OURS_ONLY
    vendors = {name: _row(name) for name in (*(known - set(_ROW_NAMES.values())), *_ROW_NAMES)}
    vendors |= {name: _row(name) for name in known & set(_ROW_NAMES.values())}
    for name, (base_url, variable) in _OTHERS.items():
        vendors.setdefault(name, Vendor(name, base_url=base_url, key_variable=variable, note=_COMPATIBLE))
    for name in _SERVERS:
        vendors.setdefault(name, Vendor(name, base_variable=f"{name.upper()}_API_BASE"))
    vendors["azure"] = Vendor(
        "azure",
        key_variable="AZURE_API_KEY",
        base_variable="AZURE_API_BASE",
        base_suffix="/openai/v1",
        note="by Azure's v1 endpoint, which needs no api_version",
    )
    return vendors


VENDORS = _vendors()
_OPENAI_NAMES = re.compile(
    r"(?:ft:)?(?:gpt-|o[1-9](?:-|\Z)|chatgpt-|text-embedding-|dall-e|tts-|whisper-|omni-moderation|computer-use)"
)
_OTHER_NAMES = {"claude-": "anthropic", "command-": "cohere", "deepseek-": "deepseek"}


def vendor_of_bare(model: str) -> str | None:
    """The prefix that LiteLLM's table of models implies for a name without one; None if it is not known."""
    if _OPENAI_NAMES.match(model):
        return "openai"
    return next((vendor for start, vendor in _OTHER_NAMES.items() if model.startswith(start)), None)
