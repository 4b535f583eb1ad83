"""What each key of LiteLLM's file does here: the data of the report and of the document.

The names are those that LiteLLM 1.110 reads. A key whose outcome depends on its value, as that of
`routing_strategy`, has the note of its usual value here; `convert` says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sanic_proxy.config.litellm import costs, rare_keys
from sanic_proxy.config.litellm.notes import Outcome


@dataclass(frozen=True, slots=True)
class Rule:
    """What became of a key, and why or how. `is_common`: it has a row in the document; `is_rare`: it is not
    even named there.
    """

    outcome: Outcome
    text: str = ""
    is_common: bool = True
    is_rare: bool = False


Rules = Mapping[str, Rule]


def _exact(text: str = "") -> Rule:
    return Rule("exact", text)


def _approximate(text: str) -> Rule:
    return Rule("approximate", text)


def _ignored(text: str, names: str) -> Rules:
    return {name: Rule("ignored", text) for name in names.split()}


def _without_effect(names: str) -> Rules:
    return {name: Rule("ignored", is_common=False) for name in names.split()}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _rare(names: frozenset[str]) -> Rules:
    return dict.fromkeys(sorted(names), Rule("ignored", is_common=False, is_rare=True))


_DROP = "what the vendor is known to reject is removed; without it, it is sent, and is no error here"
_NO_CACHE = "answers are not cached"
_NO_CALLBACKS = "there are no callbacks; each request is a line of the access log"
_NO_BUDGETS = "there are no budgets"
_NO_DATABASE = "no database is needed; shared state is SQLite in SANIC_PROXY_STATE_DIR"
_NO_REDIS = "workers share no state over Redis"
_NO_GUARDRAILS = "there are no guardrails"
_LOGS = "use SANIC_PROXY_LOG_LEVEL"
_CIRCUITS = "circuits open after 5 failures in a row, for 5 to 12 s"

TOP: Rules = {
    "model_list": _exact(),
    "litellm_settings": _exact(),
    "router_settings": _exact(),
    "general_settings": _exact(),
    "credential_list": _exact(),
    "environment_variables": _approximate("a variable of the environment or of `.env` wins over the file"),
    **_ignored(_NO_GUARDRAILS, "guardrails policies policy_attachments"),
    **_ignored(_NO_CALLBACKS, "callback_settings"),
    **_ignored("there is no MCP gateway", "mcp_servers mcp_tools"),
    **_ignored("put all into one file", "include"),
    **_without_effect(
        "vector_store_registry sandbox_tools search_tools files_settings finetune_settings"
        " assistant_settings prompts agents default_vertex_config cost_discount_config skills plugins"
        " a2a_agents"
    ),
}

# Costs of the models of the file, with those of tiers and services.
_COSTS: Rules = {
    name: Rule(
        "exact", "`prices`", is_common=name in costs.COMMON_NAMES, is_rare=name not in costs.COMMON_NAMES
    )
    for name in costs.NAMES
}

MODEL: Rules = {
    "model_name": _exact("repeated names are several targets; `*` as in LiteLLM"),
    "litellm_params": _exact(),
    "model_info": _exact(),
    **{name: _exact(f"as `litellm_params.{name}`") for name in ("rpm", "tpm", "weight", "order")},
}

_LIMIT = (
    "the share of requests, as in LiteLLM; a limit only with `enable_pre_call_checks`,"
    " `enforce_model_rate_limits` or a usage-based strategy"
)
PARAMS: Rules = {
    **_rare(rare_keys.PARAMS),
    "model": _exact("the prefix picks the provider; an unsupported one is named, and the rest is served"),
    "custom_llm_provider": _exact("as a prefix of `model`"),
    "api_key": _exact("also `os.environ/NAME`"),
    "api_base": _exact("also `base_url`; an endpoint at its end is removed"),
    "base_url": _exact("as `api_base`"),
    "api_version": Rule("ignored", "Azure's v1 endpoint needs none"),
    "organization": _exact("as the header `openai-organization`"),
    "extra_headers": _exact(),
    "headers": _exact("as `extra_headers`"),
    "litellm_credential_name": _exact(),
    "weight": _exact(),
    "order": _exact(),
    "rpm": _exact(_LIMIT),
    "tpm": _exact(_LIMIT),
    "max_parallel_requests": _exact("requests in flight to the target"),
    "drop_params": _approximate(_DROP),
    "additional_drop_params": _exact("`remove_params` of the model"),
    "allowed_openai_params": _exact("nothing else is removed"),
    "timeout": _approximate("to the first byte of an answer; between two bytes at most 120 s"),
    "stream_timeout": _approximate("to a stream's first content, while another target is left"),
    "max_retries": _approximate("`num_retries` of the proxy counts"),
    "num_retries": _approximate("`num_retries` of the proxy counts"),
    **_COSTS,
    **_ignored("Vertex AI is not supported", "vertex_project vertex_location vertex_credentials"),
    **_ignored(
        "Bedrock is not supported",
        "aws_access_key_id aws_secret_access_key aws_session_token aws_region_name aws_role_name"
        " aws_profile_name aws_session_name aws_bedrock_runtime_endpoint",
    ),
    **_ignored("only a key is supported", "azure_ad_token tenant_id client_id client_secret"),
    **_ignored(_NO_BUDGETS, "max_budget budget_duration"),
    **_ignored("requests are not tagged", "tags tag_regex"),
    **_ignored("use the provider `echo`", "mock_response"),
    **_ignored(_CIRCUITS, "cooldown_time"),
    **_without_effect(
        "itpm otpm tpd rpd daily_reset_time timeout_by_service_tier stream_timeout_by_service_tier"
        " configurable_clientside_auth_params provider_affinity_header litellm_trace_id max_file_size_mb"
        " default_api_key_tpm_limit default_api_key_rpm_limit keepalive_seconds"
        " allow_client_keepalive_override use_in_pass_through use_litellm_proxy use_chat_completions_api"
        " merge_reasoning_content_in_choices region_name"
        " input_cost_per_character output_cost_per_character"
        " caching ttl watsonx_region_name auto_router_config auto_router_config_path"
        " auto_router_default_model auto_router_embedding_model complexity_router_config ssl_verify"
    ),
}

# Parameters of a request that may stand beside those of the deployment: for requests that do not have them.
# They become `default_params` of the model.
REQUEST_PARAMS = _names(
    "temperature top_p n stop max_tokens max_completion_tokens presence_penalty frequency_penalty"
    " logit_bias user response_format seed tools tool_choice parallel_tool_calls logprobs top_logprobs"
    " reasoning_effort verbosity thinking service_tier safety_identifier prompt_cache_key store metadata"
    " modalities audio prediction web_search_options top_k min_p repetition_penalty extra_body"
    " stream_options"
)

INFO: Rules = {
    **_rare(rare_keys.INFO),
    "mode": _exact("clients choose the endpoint"),
    "max_input_tokens": _exact("the context window"),
    "max_tokens": _approximate("the context window, without `max_input_tokens`"),
    **_COSTS,
    "max_output_tokens": _exact("`max_output`"),
    **_without_effect(
        "id base_model db_model updated_at updated_by created_at created_by tier team_id"
        " team_public_model_name access_groups supports_vision supports_function_calling"
        " supports_reasoning supports_tool_choice supports_response_schema supports_prompt_caching"
        " supports_parallel_function_calling supports_system_messages supports_pdf_input"
        " supports_audio_input supports_audio_output supports_web_search supported_openai_params"
        " supported_environments litellm_provider health_check_model health_check_timeout"
        " health_check_max_tokens disable_background_health_check output_vector_size description"
        " blocked discoverable"
        " metadata version domain"
    ),
}

# Keys that are read from both sections; those of `router_settings` win, as in LiteLLM.
ROUTING: Rules = {
    "num_retries": _approximate("attempts on one target; in all, so many for each model of a fallback"),
    "fallbacks": _exact("also written as texts or as one mapping"),
    "default_fallbacks": _exact(),
    "context_window_fallbacks": _exact(),
    "content_policy_fallbacks": _exact(),
    "max_fallbacks": _exact(),
    "allowed_fails": _approximate(_CIRCUITS),
    "allowed_fails_policy": _approximate(_CIRCUITS),
    "cooldown_time": _approximate(_CIRCUITS),
    "set_verbose": Rule("ignored", _LOGS),
}
ROUTER: Rules = {
    **ROUTING,
    "routing_strategy": _exact(
        "simple-shuffle is `weighted`, least-busy is `least_in_flight`, latency-based-routing is"
        " `least_latency`"
    ),
    "timeout": _approximate("to the first byte of an answer; between two bytes at most 120 s"),
    "stream_timeout": _approximate("to a stream's first content, while another target is left"),
    "max_retries": _approximate("as `num_retries`"),
    "model_group_alias": _exact("also `hidden`"),
    "disable_cooldowns": _exact("`SANIC_PROXY_BREAKER=off`"),
    "default_litellm_params": _exact(),
    "enable_pre_call_checks": _approximate(
        "`rpm` and `tpm` become limits; a prompt is not measured before it is sent"
    ),
    "optional_pre_call_checks": _approximate(
        "`enforce_model_rate_limits` makes `rpm` and `tpm` limits; sessions keep their targets anyway"
    ),
    "session_affinity_repin_on_failover": _approximate("a session always moves to the target that answered"),
    "deployment_affinity_ttl_seconds": Rule("ignored", "see `cache_ttl` of a provider"),
    "model_group_affinity_config": Rule("ignored", "see `affinity` of a model"),
    "default_max_parallel_requests": _exact("requests in flight to each target"),
    "retry_after": _approximate("the proxy's own backoff, or the provider's Retry-After"),
    "retry_policy": _approximate("which failures are retried is fixed: see routing.md"),
    "model_group_retry_policy": _approximate("which failures are retried is fixed: see routing.md"),
    "debug_level": Rule("ignored", _LOGS),
    **_ignored(_NO_REDIS, "redis_host redis_port redis_password redis_url redis_db"),
    **_ignored(_NO_CACHE, "cache_responses cache_kwargs caching_groups client_ttl"),
    **_ignored(_NO_BUDGETS, "provider_budget_config"),
    **_ignored("requests are not tagged", "enable_tag_filtering tag_filtering_match_any tag_routing_prefix"),
    **_without_effect(
        "routing_strategy_args polling_interval default_priority alerting_config router_general_settings"
        " routing_groups plugins ignore_invalid_deployments enable_health_check_routing"
        " health_check_staleness_threshold"
        " health_check_ignore_transient_errors background_health_check_model_groups"
        " enable_weighted_failover enable_mid_stream_fallback_continuation fallback_on_unsupported_params"
        " assistants_config search_tools guardrail_list"
    ),
}

LITELLM: Rules = {
    **_rare(rare_keys.LITELLM),
    **ROUTING,
    "drop_params": _approximate(_DROP),
    "request_timeout": _approximate("to the first byte of an answer; between two bytes at most 120 s"),
    "num_retries_per_request": _approximate("as `num_retries`"),
    "model_alias_map": _exact(),
    "json_logs": _exact("`SANIC_PROXY_LOG_FORMAT=json`"),
    "turn_off_message_logging": _exact("the log holds no content"),
    "redact_messages_in_exceptions": _exact("the log holds no content"),
    "redact_user_api_key_info": _exact("the log holds no key"),
    "telemetry": _exact("nothing is reported to anybody"),
    "ssl_verify": Rule("ignored", "use SSL_CERT_FILE for certificates of your own"),
    "suppress_debug_info": Rule("ignored", _LOGS),
    **_ignored(
        _NO_CALLBACKS,
        "callbacks success_callback failure_callback service_callback input_callback audit_log_callbacks",
    ),
    **_ignored(_NO_CACHE, "cache cache_params enable_caching_on_provider_specific_optional_params caching"),
    **_ignored(
        _NO_BUDGETS,
        "max_budget budget_duration max_user_budget max_internal_user_budget internal_user_budget_duration"
        " max_end_user_budget default_team_settings default_team_params default_internal_user_params"
        " upperbound_key_generate_params default_key_generate_params key_generation_settings",
    ),
    **_ignored(_NO_GUARDRAILS, "guardrails"),
    **_ignored("use `api_key` of each model", "openai_key anthropic_key groq_key azure_key api_key"),
    **_without_effect(
        "modify_params default_redis_ttl default_redis_batch_cache_expiry default_in_memory_ttl"
        " enable_json_schema_validation disable_end_user_cost_tracking disable_streaming_logging"
        " disable_token_counter disable_aiohttp_transport use_aiohttp_transport aiohttp_trust_env"
        " force_ipv4 langfuse_default_tags langfuse_enable_update_trace_keys s3_callback_params"
        " datadog_params prometheus_metrics_config prometheus_initialize_budget_metrics"
        " custom_prometheus_metadata_labels custom_prometheus_tags"
        " enable_end_user_cost_tracking_prometheus_only require_auth_for_metrics_endpoint"
        " log_raw_request_response include_cost_in_streaming_usage forward_traceparent_to_llm_provider"
        " model_group_settings public_model_groups custom_provider_map credential_list"
        " check_provider_endpoint enable_preview_features priority_reservation return_response_headers"
        " ssl_certificate ssl_security_level ssl_ecdh_curve store_audit_logs tag_budget_config"
        " extra_spend_tag_headers blocked_user_list banned_keywords_list llm_guard_mode"
        " llamaguard_model_name presidio_ad_hoc_recognizers output_parse_pii post_call_rules pre_call_rules"
        " add_function_to_prompt model_cost_map_url use_litellm_proxy organization api_base headers"
        " vertex_project vertex_location reasoning_auto_summary default_soft_budget"
        " disable_add_transform_inline_image_block disable_hf_tokenizer_download"
        " expose_router_debug_in_errors generic_logger_headers validate_end_user_id_in_db"
        " user_url_validation user_url_allowed_hosts callback_settings mcp_aliases mcp_tool_search"
        " responses enable_redis_auth_cache proxy_auth enable_anthropic_prompt_caching"
        " route_all_chat_openai_to_responses sse_keepalive_ping_interval_seconds"
    ),
}

GENERAL: Rules = {
    **_rare(rare_keys.GENERAL),
    "master_key": _exact("a client key and, with 8 characters or more, the admin key"),
    "max_request_size_mb": _exact("`SANIC_PROXY_MAX_BODY_BYTES`"),
    "max_parallel_requests": Rule("ignored", "client keys have no limits of their own"),
    "global_max_parallel_requests": _approximate("`SANIC_PROXY_MAX_CONCURRENT` of each worker"),
    "max_in_flight_requests_per_worker": _exact("`SANIC_PROXY_MAX_CONCURRENT`"),
    "disable_spend_logs": _exact("no spend is recorded"),
    "disable_error_logs": _exact("errors are recorded in the log only"),
    "cancel_on_disconnect": _exact("a client that leaves cancels its request"),
    "infer_model_from_keys": Rule("ignored", "list the models, or use a name with `*`"),
    "health_check_interval": Rule("ignored", "targets are judged by their requests"),
    "background_health_checks": Rule("ignored", "targets are judged by their requests"),
    "alerting": Rule("ignored", "watch the log for circuits that open"),
    **_ignored(
        _NO_DATABASE,
        "database_url database_connection_pool_limit database_connection_timeout database_type"
        " database_args store_model_in_db store_prompts_in_spend_logs allow_requests_on_db_unavailable"
        " proxy_batch_write_at use_redis_transaction_buffer",
    ),
    **_ignored(_NO_REDIS, "coordination_redis"),
    **_ignored(
        "client keys are those of SANIC_PROXY_API_KEYS", "custom_auth enable_jwt_auth litellm_jwtauth"
    ),
    **_ignored("there is no single sign-on", "ui_access_mode proxy_admin_email allowed_routes"),
    **_without_effect(
        "completion_model dangerously_permit_weak_or_unset_master_key key_management_system"
        " key_management_settings use_google_kms use_azure_key_vault alerting_threshold alert_types"
        " alerting_args alert_to_webhook_url spend_report_frequency otel enforce_user_param enforced_params"
        " allowed_ips use_x_forwarded_for public_routes admin_only_routes pass_through_endpoints"
        " maximum_spend_logs_retention_period maximum_spend_logs_retention_interval user_header_name"
        " user_header_mappings forward_client_headers_to_llm_api forward_openai_org_id health_check_details"
        " health_check_concurrency disable_reset_budget disable_adding_master_key_hash_to_db"
        " enable_oauth2_auth enable_oauth2_proxy_auth service_account_settings control_plane_url"
        " role_permissions enable_public_model_hub reject_clientside_metadata_tags block_robots"
        " max_response_size_mb max_file_size_mb allowed_file_extensions blocked_file_extensions"
        " user_api_key_cache_ttl user_api_key_cache_max_size proxy_budget_rescheduler_min_time"
        " proxy_budget_rescheduler_max_time custom_key_generate custom_sso custom_ui_sso_sign_in_handler"
        " default_team_disabled image_generation_model max_queued_requests_per_worker"
        " admission_queue_timeout_seconds proxy_config_reload_interval_seconds"
        " require_end_user_mcp_access_defined mcp_internal_ip_ranges disable_prisma_schema_update"
        " cors_allow_origins always_include_stream_usage disable_spend_updates"
        " store_prompts_in_cold_storage"
    ),
}

SECTIONS: Mapping[str, Rules] = {
    "(top)": TOP,
    "model_list[]": MODEL,
    "model_list[].litellm_params": PARAMS,
    "model_list[].model_info": INFO,
    "router_settings": ROUTER,
    "litellm_settings": LITELLM,
    "general_settings": GENERAL,
}
