"""All providers that ship with the proxy, a row each. Knows no settings and no network.

Outside this module and a provider's own folder no code names a provider: it reads the flags of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from sanic_proxy.config.saving import Continuation


@dataclass(frozen=True, slots=True)
class Row:
    """One provider: its protocol, its address, the variable with its key, and what it needs besides.

    `protocol` names the class that speaks to it, `dialects` the APIs for conversations that the provider
    offers, the one for translated requests first. `key_header` carries the key: `authorization` as a Bearer
    token, any other one bare. `has_openai_fields`: translated chats may have the fields that OpenAI alone
    knows, and their limit is `max_completion_tokens`. `base_url` is such that a dialect's path
    (`/chat/completions`) follows it; None for a local server, which is on only when its address is set, such
    as `example_url`. `serves_any_name`:
    its own model ids look like prefixed ones (`openai/gpt-4o`), so while it is on the router is off by
    default, and a name without prefix is its own. `is_embedded`: it answers inside the proxy, without a key;
    `is_replay`: with captured answers, and only where there is a file with these.
    `unsupported_params` are parameters of OpenAI's chats that the vendor rejects; they are sent unless the
    operator removes them. `continues` is how the provider is asked to continue an answer that broke off;
    empty: it is not known to. `endpoint_variable` is the variable with the address of the customer's own
    resource, in place of a `base_url`, and `version_variable` the one with a dated version of the API
    (`ProviderSettings.api_version`). `cache_ttl_s` is how long the vendor caches a prompt that is not used.
    `is_free`: its answers cost nothing. `cost_unit`: it reports what each request costs, in units of so many
    US dollars. `max_image_tokens` is the most that an image has. `telemetry_name` is what OpenTelemetry's
    GenAI conventions call the provider; empty: by its `name`. `docs` is the vendor's page with all that.
    """

    name: str
    base_url: str | None
    key_variable: str | None
    protocol: str = "openai"
    key_required: bool = True
    aliases: tuple[str, ...] = ()
    other_key_variables: tuple[str, ...] = ()
    forward_headers: tuple[str, ...] = ()
    models_path: str | None = "/models"
    models: tuple[str, ...] = ()
    model_prefix: str = ""
    commit_delay_s: float = 10.0
    example_url: str = ""
    serves_any_name: bool = False
    is_embedded: bool = False
    is_replay: bool = False
    docs: str = ""
    dialects: tuple[str, ...] = ("chat",)
    key_header: str = "authorization"
    has_openai_fields: bool = False
    unsupported_params: tuple[str, ...] = ()
    continues: Continuation = ""
    endpoint_variable: str = ""
    version_variable: str = ""
    cache_ttl_s: float = 300.0
    is_free: bool = False
    cost_unit: float | None = None
    # The most that is documented anywhere, that of gpt-4o-mini: 2,833 and 8 tiles of 5,667.
    # developers.openai.com/api/docs/guides/images-vision
    max_image_tokens: int = 48_169
    telemetry_name: str = ""

    @property
    def base_url_variable(self) -> str:
        """The variable that replaces `base_url`."""
        return f"{self.name.upper().replace('-', '_')}_BASE_URL"


def _local(name: str, port: int, docs: str, continues: Continuation = "") -> Row:
    """A server on one's own machine: its key, if it was started with one, is optional."""
    example = f"http://127.0.0.1:{port}/v1"
    return Row(
        name,
        None,
        f"{name.upper()}_API_KEY",
        key_required=False,
        example_url=example,
        docs=docs,
        continues=continues,
        is_free=True,
    )


ROWS: tuple[Row, ...] = (
    Row(
        "straico",
        "https://api.straico.com",
        "STRAICO_API_KEY",
        protocol="straico",
        models_path="/v2/models",
        commit_delay_s=3.0,
        serves_any_name=True,
        docs="documenter.getpostman.com/view/5900072/2s9YyzddrR",
    ),
    Row(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        forward_headers=("openai-organization", "openai-project", "openai-beta"),
        has_openai_fields=True,
        dialects=("chat", "responses"),
        cache_ttl_s=3600.0,
        docs="platform.openai.com/docs/api-reference/introduction",
    ),
    Row(
        "anthropic",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        dialects=("messages",),
        key_header="x-api-key",
        models_path="/models?limit=1000",
        max_image_tokens=4784,  # platform.claude.com/docs/en/build-with-claude/vision
        docs="platform.claude.com/docs/en/api/overview",
    ),
    Row(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        unsupported_params=("logit_bias", "logprobs", "top_logprobs"),
        docs="console.groq.com/docs/openai",
    ),
    Row(
        "cerebras",
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        unsupported_params=(
            *("frequency_penalty", "presence_penalty", "logit_bias"),
            *("parallel_tool_calls", "service_tier"),
        ),
        docs="inference-docs.cerebras.ai/resources/openai",
    ),
    Row(
        "sambanova",
        "https://api.sambanova.ai/v1",
        "SAMBANOVA_API_KEY",
        docs="docs.sambanova.ai/docs/en/features/openai-compatibility",
    ),
    Row(
        "google",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GOOGLE_API_KEY",
        aliases=("gemini",),
        other_key_variables=("GEMINI_API_KEY",),
        model_prefix="models/",
        telemetry_name="gcp.gemini",
        # Not on the vendor's page: its 400 says `Unknown name "seed": Cannot find field`.
        unsupported_params=("frequency_penalty", "presence_penalty", "logit_bias", "seed"),
        dialects=("gemini", "chat"),  # translations carry thought signatures in its own API only
        docs="ai.google.dev/gemini-api/docs/openai",
    ),
    Row(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        # It answers 422 `extra_forbidden` to every field that its page does not have.
        unsupported_params=(
            *("logit_bias", "logprobs", "top_logprobs", "user", "store", "metadata", "service_tier"),
            *("verbosity", "web_search_options", "safety_identifier", "modalities", "audio"),
        ),
        docs="docs.mistral.ai/api",
        telemetry_name="mistral_ai",
        continues="prefix",
    ),
    Row("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", docs="api-docs.deepseek.com"),
    Row(
        "together",
        "https://api.together.ai/v1",
        "TOGETHER_API_KEY",
        other_key_variables=("TOGETHERAI_API_KEY",),
        docs="docs.together.ai/docs/inference/openai-compatibility",
    ),
    Row(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        other_key_variables=("FIREWORKS_AI_API_KEY",),
        docs="docs.fireworks.ai/tools-sdks/openai-compatibility",
    ),
    Row(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        dialects=("chat", "messages"),
        forward_headers=("http-referer", "x-title", "x-openrouter-title", "x-openrouter-categories"),
        cost_unit=1.0,
        docs="openrouter.ai/docs/quickstart",
    ),
    Row(
        "xai",
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        dialects=("chat", "responses"),
        cost_unit=1.0,
        docs="docs.x.ai/docs/api-reference",
        telemetry_name="x_ai",
    ),
    Row(
        "perplexity",
        "https://api.perplexity.ai",
        "PERPLEXITY_API_KEY",
        models_path=None,  # the vendor lists its models on a page only
        models=("sonar", "sonar-pro", "sonar-reasoning-pro", "sonar-deep-research"),
        cost_unit=1.0,
        docs="docs.perplexity.ai/guides/chat-completions-guide",
    ),
    Row(
        "nvidia",
        "https://integrate.api.nvidia.com/v1",
        "NVIDIA_API_KEY",
        docs="docs.api.nvidia.com/nim/reference/llm-apis",
    ),
    Row(
        "moonshot",
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        docs="platform.kimi.ai/docs/api/chat",
        telemetry_name="moonshot_ai",
    ),
    Row(
        "zai",
        "https://api.z.ai/api/paas/v4",
        "ZAI_API_KEY",
        docs="docs.z.ai/guides/develop/openai/python",
    ),
    Row(
        # Singapore; keys are regional, and DASHSCOPE_BASE_URL names another region.
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        docs="alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",
    ),
    Row(
        # Not HF_TOKEN: it is set for downloads, and would turn on a service that is billed.
        "huggingface",
        "https://router.huggingface.co/v1",
        "HUGGINGFACE_API_KEY",
        docs="huggingface.co/docs/inference-providers/index",
    ),
    Row(
        # Not GITHUB_TOKEN: every CI job has one. The models are listed elsewhere, in another format.
        "github",
        "https://models.github.ai/inference",
        "GITHUB_API_KEY",
        models_path=None,
        docs="docs.github.com/en/rest/models/inference",
    ),
    Row(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        "COHERE_API_KEY",
        models_path=None,  # not among the endpoints of the compatibility API
        docs="docs.cohere.com/docs/compatibility-api",
    ),
    Row(
        "azure",
        None,  # each customer has a resource with a name of its own
        "AZURE_API_KEY",
        other_key_variables=("AZURE_OPENAI_API_KEY",),
        endpoint_variable="AZURE_OPENAI_ENDPOINT",
        version_variable="AZURE_OPENAI_API_VERSION",
        key_header="api-key",
        has_openai_fields=True,
        dialects=("chat", "responses"),
        docs="learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        telemetry_name="azure.ai.openai",
    ),
    _local("ollama", 11434, "docs.ollama.com/api/openai-compatibility"),
    _local("vllm", 8000, "docs.vllm.ai/en/latest/serving/openai_compatible_server", "continue_final_message"),
    _local("lmstudio", 1234, "lmstudio.ai/docs/developer/openai-compat"),
    _local("llamacpp", 8080, "github.com/ggml-org/llama.cpp/tree/master/tools/server", "assistant"),
    Row(
        "replay",
        None,
        None,
        protocol="replay",
        key_required=False,
        is_embedded=True,
        is_replay=True,
        is_free=True,
        dialects=("chat", "messages", "responses", "gemini"),
    ),
    Row("echo", None, None, protocol="echo", key_required=False, is_embedded=True, is_free=True),
)

# The provider that gets every model name while the router is off, and names without a prefix while it is on.
CATCH_ALL = next(row for row in ROWS if row.serves_any_name)
# A model's name for messages and documents.
EXAMPLE_MODEL = "groq/llama-3.3-70b-versatile"


def vendor_at(name: str, base_url: str) -> str:
    """The catalog's name of the vendor of a provider: its own, or that of the row with the same host; or "".

    A provider of the settings file is often a vendor of the catalog with another key.
    """
    if any(row.name == name for row in ROWS):
        return name
    host = urlsplit(base_url).hostname
    return next((row.name for row in ROWS if row.base_url and urlsplit(row.base_url).hostname == host), "")
