"""Failed answers as vendors send them, and what the client gets of each.

The bodies have the shapes that the vendors document or that users have reported; names, ids and numbers are
made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sanic_proxy import errors

Kind = type[errors.ProxyError]

AUTH, DENIED = errors.UpstreamAuthFailed, errors.UpstreamAccessDenied
BUSY, REJECTED, REFUSED = errors.UpstreamBusy, errors.UpstreamRejected, errors.UpstreamRefusedRequest
CONTEXT, FILTERED = errors.ContextLengthExceeded, errors.ContentFiltered
LIMITED, QUOTA = errors.RateLimited, errors.InsufficientQuota
DOWN, FAILED, TIMEOUT = errors.UpstreamUnavailable, errors.UpstreamError, errors.UpstreamTimeout


@dataclass(frozen=True)
class Vendor:
    """One answer. `message` is a part of the client's message; `type` is checked where it is given."""

    name: str
    status: int
    body: Any
    kind: Kind
    answer: int
    code: str | None
    message: str
    type: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float | None = None
    details: tuple[str, ...] = ()
    is_blameless: bool = False

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def openai(
    message: str, type: str | None = None, code: Any = None, param: str | None = None, **more: Any
) -> Any:
    return {"error": {"message": message, "type": type, "param": param, "code": code, **more}}


INVALID = "invalid_request_error"
MAXIMUM = (
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
)
SCOPES = (
    "You have insufficient permissions for this operation. Missing scopes: api.responses.write. Check that "
    "you have the correct role, and if you're using a restricted API key, that it has the necessary scopes."
)
TPM = (
    "Request too large for model `m` in organization `org_x` on tokens per minute (TPM): Limit 6000, "
    "Requested 7000, please reduce your message size and try again."
)
GOOGLE_QUOTA = {
    "code": 429,
    "message": "You exceeded your current quota, please check your plan and billing details.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinute"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"},
    ],
}
GOOGLE_KEY = {
    "code": 400,
    "message": "API key not valid. Please pass a valid API key.",
    "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
}
AZURE_FILTER = openai(
    "The response was filtered due to the prompt triggering the content management policy.",
    None,
    "content_filter",
    "prompt",
    status=400,
    innererror={
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
    },
)
RAW_CONTEXT = json.dumps(openai(MAXIMUM, INVALID, "context_length_exceeded", "messages"))
FIELD_REQUIRED = [
    {"type": "missing", "loc": ["body", "messages", 0, "role"], "msg": "Field required", "input": {}},
    {"type": "int_parsing", "loc": ["body", "n"], "msg": "Input should be a valid integer", "input": "x"},
]
HTML = (
    b"<!DOCTYPE html><html><head><title>gw7.internal.example | 503</title></head>"
    b"<body>upstream 10.0.0.7 sent nothing</body></html>"
)

VENDORS: tuple[Vendor, ...] = (
    # The client's request
    Vendor(
        "OpenAI 400",
        400,
        openai("no n", INVALID, "invalid_value", "n"),
        REFUSED,
        400,
        "invalid_value",
        "no n",
        INVALID,
        "n",
    ),
    Vendor(
        "OpenAI file",
        404,
        openai("No such File object: f-1", INVALID, None, "id"),
        REFUSED,
        404,
        None,
        "No such File",
        INVALID,
        "id",
    ),
    Vendor(
        "OpenAI response",
        404,
        openai("Response with id 'resp_1' not found.", INVALID),
        REFUSED,
        404,
        None,
        "resp_1",
    ),
    Vendor(
        "FastAPI 422",
        422,
        {"detail": FIELD_REQUIRED},
        REFUSED,
        422,
        "upstream_bad_request",
        "messages.0.role: Field required; n: Input should be a valid integer",
        INVALID,
        "messages.0.role",
        details=("detail",),
    ),
    Vendor(
        "Mistral 422",
        422,
        {"object": "error", "message": {"detail": FIELD_REQUIRED}, "type": INVALID, "code": None},
        REFUSED,
        422,
        "upstream_bad_request",
        "messages.0.role: Field required",
        INVALID,
        "messages.0.role",
    ),
    Vendor(
        "FastAPI text",
        422,
        {"detail": "temperature is wrong"},
        REFUSED,
        422,
        "upstream_bad_request",
        "temperature is wrong",
        INVALID,
    ),
    Vendor(
        "Cloudflare",
        400,
        {
            "success": False,
            "errors": [{"code": 5006, "message": "Type mismatch of '/n'"}],
            "messages": [],
            "result": None,
        },
        REFUSED,
        400,
        "5006",
        "Type mismatch",
        INVALID,
    ),
    Vendor(
        "errors of texts",
        400,
        {"errors": ["n must be 1", "top_p must be 1"]},
        REFUSED,
        400,
        "upstream_bad_request",
        "n must be 1; top_p must be 1",
    ),
    Vendor(
        "AWS",
        400,
        {"Message": "1 validation error detected"},
        REFUSED,
        400,
        "upstream_bad_request",
        "1 validation error",
        INVALID,
    ),
    Vendor(
        "Apigee",
        400,
        {"fault": {"faultstring": "Invalid JSON", "detail": {"errorcode": "steps.json.Bad"}}},
        REFUSED,
        400,
        "steps.json.Bad",
        "Invalid JSON",
        INVALID,
    ),
    Vendor(
        "msg",
        400,
        {"code": 1210, "msg": "bad parameter", "success": False},
        REFUSED,
        400,
        "1210",
        "bad parameter",
        INVALID,
    ),
    Vendor(
        "old vLLM",
        400,
        {"object": "error", "message": "n must be 1", "type": "BadRequestError", "param": None, "code": 400},
        REFUSED,
        400,
        "400",
        "n must be 1",
        "BadRequestError",
    ),
    Vendor(
        "NestJS",
        400,
        {"statusCode": 400, "message": "n is wrong", "error": "Bad Request"},
        REFUSED,
        400,
        "upstream_bad_request",
        "n is wrong",
    ),
    Vendor(
        "OAuth style",
        400,
        {"error": "invalid_request", "error_description": "no grant"},
        REFUSED,
        400,
        "invalid_request",
        "no grant",
    ),
    Vendor(
        "Groq tool use",
        400,
        openai("Failed to call a function.", INVALID, "tool_use_failed", failed_generation="<function=f>{"),
        REFUSED,
        400,
        "tool_use_failed",
        "Failed to call",
        INVALID,
        details=("failed_generation",),
    ),
    Vendor(
        "OpenRouter relays",
        400,
        openai(
            "Provider returned error",
            None,
            400,
            metadata={"raw": json.dumps(openai("one image at most", INVALID)), "provider_name": "P"},
        ),
        REFUSED,
        400,
        "400",
        "Provider returned error: one image at most",
        INVALID,
        details=("metadata",),
    ),
    Vendor("empty 415", 415, b"", REFUSED, 415, "upstream_bad_request", "HTTP 415", INVALID),
    # The context window
    Vendor(
        "OpenAI context",
        400,
        openai(MAXIMUM, INVALID, "context_length_exceeded", "messages"),
        CONTEXT,
        400,
        "context_length_exceeded",
        "8192",
        INVALID,
        "messages",
    ),
    Vendor(
        "Cerebras context",
        400,
        {
            "message": "Please reduce the length of the messages or completion.",
            "type": INVALID,
            "param": "messages",
            "code": "context_length_exceeded",
        },
        CONTEXT,
        400,
        "context_length_exceeded",
        "reduce the length",
        INVALID,
        "messages",
    ),
    Vendor(
        "old vLLM context",
        400,
        {"object": "error", "message": MAXIMUM, "type": "BadRequestError", "param": None, "code": 400},
        CONTEXT,
        400,
        "context_length_exceeded",
        "8192",
    ),
    Vendor(
        "Mistral context",
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
            "type": "invalid_request_prompt",
            "code": "3051",
        },
        CONTEXT,
        400,
        "context_length_exceeded",
        "40000",
    ),
    Vendor(
        "Anthropic context",
        400,
        {
            "type": "error",
            "error": {"type": INVALID, "message": "prompt is too long: 213462 tokens > 200000 maximum"},
        },
        CONTEXT,
        400,
        "context_length_exceeded",
        "213462",
        INVALID,
    ),
    Vendor(
        "Google context",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum number of tokens.",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        CONTEXT,
        400,
        "context_length_exceeded",
        "1196265",
    ),
    Vendor(
        "xAI context",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        },
        CONTEXT,
        400,
        "context_length_exceeded",
        "131072",
    ),
    Vendor(
        "llama.cpp context",
        400,
        openai(
            "the request exceeds the available context size", "exceed_context_size_error", 400, n_ctx=4096
        ),
        CONTEXT,
        400,
        "context_length_exceeded",
        "available",
        details=("n_ctx",),
    ),
    Vendor(
        "TGI context",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.",
            "error_type": "validation",
        },
        CONTEXT,
        400,
        "context_length_exceeded",
        "4096",
    ),
    Vendor(
        "Moonshot context",
        400,
        openai("Invalid request: Your request exceeded model token limit: 8192", INVALID),
        CONTEXT,
        400,
        "context_length_exceeded",
        "8192",
    ),
    Vendor(
        "Alibaba context",
        400,
        openai("Range of input length should be [1, 30720]", INVALID, "invalid_parameter_error"),
        CONTEXT,
        400,
        "context_length_exceeded",
        "30720",
    ),
    Vendor(
        "Bedrock context",
        400,
        {"message": "Input is too long for requested model."},
        CONTEXT,
        400,
        "context_length_exceeded",
        "too long",
    ),
    Vendor(
        "OpenRouter context",
        400,
        openai("Provider returned error", None, 400, metadata={"raw": RAW_CONTEXT, "provider_name": "P"}),
        CONTEXT,
        400,
        "context_length_exceeded",
        "8192",
        details=("metadata",),
    ),
    Vendor(
        "wrapped context",
        500,
        openai(MAXIMUM, "server_error"),
        CONTEXT,
        400,
        "context_length_exceeded",
        "8192",
    ),
    # Content filters
    Vendor(
        "OpenAI filter",
        400,
        openai("Your request was rejected by our safety system.", INVALID, "content_policy_violation"),
        FILTERED,
        400,
        "content_policy_violation",
        "safety system",
        INVALID,
    ),
    Vendor(
        "Azure filter",
        400,
        AZURE_FILTER,
        FILTERED,
        400,
        "content_filter",
        "filtered",
        INVALID,
        "prompt",
        details=("innererror",),
    ),
    Vendor(
        "OpenRouter flagged",
        403,
        openai("Your input was flagged", None, 403, metadata={"reasons": ["violence"]}),
        FILTERED,
        400,
        "content_filter",
        "flagged",
        INVALID,
        details=("metadata",),
    ),
    Vendor(
        "DeepSeek filter",
        400,
        openai("Content Exists Risk", INVALID, "invalid_request_error"),
        FILTERED,
        400,
        "invalid_request_error",
        "Risk",
    ),
    Vendor(
        "Alibaba filter",
        400,
        openai(
            "Input data may contain inappropriate content.",
            "data_inspection_failed",
            "data_inspection_failed",
        ),
        FILTERED,
        400,
        "data_inspection_failed",
        "inappropriate",
    ),
    # Models
    Vendor(
        "OpenAI model",
        404,
        openai("The model `x` does not exist or you do not have access to it.", INVALID, "model_not_found"),
        REJECTED,
        404,
        "model_not_found",
        "`x`",
        INVALID,
        is_blameless=True,
    ),
    Vendor(
        "Groq retired",
        400,
        openai(
            "The model `x` has been decommissioned and is no longer supported.",
            INVALID,
            "model_decommissioned",
        ),
        REJECTED,
        400,
        "model_decommissioned",
        "decommissioned",
        INVALID,
        is_blameless=True,
    ),
    Vendor(
        "vLLM model",
        404,
        {
            "object": "error",
            "message": "The model `x` does not exist.",
            "type": "NotFoundError",
            "param": None,
            "code": 404,
        },
        REJECTED,
        404,
        "model_not_found",
        "`x`",
        is_blameless=True,
    ),
    Vendor(
        "Ollama model",
        404,
        {"error": "model 'x' not found"},
        REJECTED,
        404,
        "model_not_found",
        "model 'x'",
        is_blameless=True,
    ),
    Vendor(
        "OpenRouter id",
        400,
        openai("x/y is not a valid model ID", None, 400),
        REJECTED,
        400,
        "model_not_found",
        "x/y",
        is_blameless=True,
    ),
    Vendor(
        "OpenRouter endpoints",
        404,
        openai("No endpoints found for x/y.", None, 404),
        REJECTED,
        404,
        "model_not_found",
        "x/y",
        is_blameless=True,
    ),
    Vendor(
        "Azure deployment",
        404,
        openai("The API deployment for this resource does not exist.", None, "DeploymentNotFound"),
        REJECTED,
        404,
        "DeploymentNotFound",
        "deployment",
        is_blameless=True,
    ),
    Vendor(
        "FastAPI 404",
        404,
        {"detail": "Not Found"},
        REJECTED,
        404,
        "model_not_found",
        "Not Found",
        is_blameless=True,
    ),
    Vendor("empty 404", 404, b"", REJECTED, 404, "model_not_found", "HTTP 404", is_blameless=True),
    Vendor(
        "gone",
        410,
        openai("The model x is deprecated", INVALID),
        REJECTED,
        410,
        "model_not_found",
        "deprecated",
        is_blameless=True,
    ),
    Vendor(
        "other model texts",
        400,
        openai(
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            INVALID,
            "unsupported_parameter",
            "max_tokens",
        ),
        REFUSED,
        400,
        "unsupported_parameter",
        "max_tokens",
        INVALID,
        "max_tokens",
    ),
    # States and rejections of the target
    Vendor(
        "Groq flex",
        498,
        openai("Flex tier capacity exceeded", "capacity_exceeded_error", "capacity_exceeded"),
        BUSY,
        498,
        "capacity_exceeded",
        "capacity",
    ),
    Vendor("empty 499", 499, b"", BUSY, 499, "upstream_rejected", "HTTP 499", "server_error"),
    Vendor("too early", 425, b"", BUSY, 425, "upstream_rejected", "HTTP 425", "server_error"),
    Vendor(
        "locked",
        423,
        {"detail": "model is loading"},
        BUSY,
        423,
        "upstream_rejected",
        "loading",
        "server_error",
    ),
    Vendor(
        "TGI CUDA",
        424,
        {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"},
        BUSY,
        424,
        "upstream_rejected",
        "CUDA",
        "server_error",
    ),
    Vendor(
        "CUDA 400",
        400,
        {"detail": "CUDA out of memory. Tried to allocate 2 GiB"},
        BUSY,
        400,
        "upstream_rejected",
        "CUDA",
        "server_error",
    ),
    Vendor(
        "timed out",
        408,
        openai("Timed out generating response", "timeout"),
        BUSY,
        408,
        None,
        "Timed out",
        "timeout",
    ),
    Vendor("empty 421", 421, b"", REJECTED, 421, "upstream_rejected", "HTTP 421", INVALID),
    Vendor("empty 460", 460, b"", REJECTED, 460, "upstream_rejected", "HTTP 460", INVALID),
    Vendor("teapot", 418, {"detail": "no"}, REJECTED, 418, "upstream_rejected", "no"),
    Vendor(
        "method",
        405,
        {"detail": "Method Not Allowed"},
        REJECTED,
        405,
        "upstream_rejected",
        "Method",
        is_blameless=True,
    ),
    Vendor("conflict", 409, openai("Conflict", INVALID), REJECTED, 409, None, "Conflict", is_blameless=True),
    # Keys
    Vendor(
        "OpenAI key",
        401,
        openai(
            "Incorrect API key provided: sk-abc. See https://platform.example/account/api-keys.",
            INVALID,
            "invalid_api_key",
        ),
        AUTH,
        502,
        "upstream_auth_error",
        "rejected the proxy's API key",
        "server_error",
    ),
    Vendor(
        "Anthropic key",
        401,
        {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
        AUTH,
        502,
        "upstream_auth_error",
        "operator",
    ),
    Vendor("FastAPI key", 401, {"detail": "Unauthorized"}, AUTH, 502, "upstream_auth_error", "operator"),
    Vendor("bare 401", 401, b"", AUTH, 502, "upstream_auth_error", "operator"),
    Vendor("Google key", 400, [{"error": GOOGLE_KEY}], AUTH, 502, "upstream_auth_error", "operator"),
    Vendor(
        "xAI key",
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***."},
        AUTH,
        502,
        "upstream_auth_error",
        "operator",
    ),
    Vendor(
        "403 key",
        403,
        {"error": "The API key has been revoked"},
        AUTH,
        502,
        "upstream_auth_error",
        "operator",
    ),
    Vendor(
        "deactivated",
        401,
        openai("The OpenAI account has been deactivated.", INVALID, "account_deactivated"),
        AUTH,
        502,
        "upstream_auth_error",
        "operator",
    ),
    Vendor(
        "scopes",
        401,
        openai(SCOPES, INVALID),
        DENIED,
        502,
        "upstream_access_denied",
        "Missing scopes",
        "server_error",
    ),
    Vendor(
        "scope code", 401, openai("no", INVALID, "missing_scope"), DENIED, 502, "upstream_access_denied", "no"
    ),
    Vendor(
        "organization",
        401,
        openai("You must be a member of an organization to use the API.", INVALID),
        DENIED,
        502,
        "upstream_access_denied",
        "member",
    ),
    Vendor(
        "verified",
        403,
        openai("Your organization must be verified to use the model `x`.", INVALID),
        DENIED,
        502,
        "upstream_access_denied",
        "must be verified",
    ),
    Vendor(
        "verified 404",
        404,
        openai("Your organization must be verified to use the model `x`.", INVALID, "model_not_found"),
        DENIED,
        502,
        "upstream_access_denied",
        "must be verified",
    ),
    Vendor(
        "region",
        403,
        openai(
            "Country, region, or territory not supported",
            "request_forbidden",
            "unsupported_country_region_territory",
        ),
        DENIED,
        502,
        "upstream_access_denied",
        "Country",
    ),
    Vendor(
        "Google 403",
        403,
        [
            {
                "error": {
                    "code": 403,
                    "message": "API has not been used in project 1",
                    "status": "PERMISSION_DENIED",
                }
            }
        ],
        DENIED,
        502,
        "upstream_access_denied",
        "project 1",
    ),
    Vendor("empty 403", 403, b"", DENIED, 502, "upstream_access_denied", "denied"),
    # Credit
    Vendor(
        "OpenAI quota",
        429,
        openai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
        QUOTA,
        429,
        "insufficient_quota",
        "quota",
        "insufficient_quota",
    ),
    Vendor(
        "DeepSeek credit",
        402,
        openai("Insufficient Balance", "unknown_error", "invalid_request_error"),
        QUOTA,
        429,
        "insufficient_quota",
        "Balance",
    ),
    Vendor(
        "Anthropic credit",
        400,
        {
            "type": "error",
            "error": {"type": INVALID, "message": "Your credit balance is too low to access the API."},
        },
        QUOTA,
        429,
        "insufficient_quota",
        "credit",
    ),
    Vendor(
        "OpenRouter key limit",
        403,
        openai("Key limit exceeded (total limit).", None, 403),
        QUOTA,
        429,
        "insufficient_quota",
        "Key limit",
    ),
    Vendor(
        "OpenRouter tokens",
        402,
        openai(
            "This request requires more credits, or fewer max_tokens. You can only afford 400.",
            None,
            402,
        ),
        REJECTED,
        402,
        "402",
        "fewer max_tokens",
        is_blameless=True,
    ),
    Vendor("empty 402", 402, b"", QUOTA, 429, "insufficient_quota", "no credit"),
    # Rate limits
    Vendor(
        "OpenAI limit",
        429,
        openai("Rate limit reached. Please try again in 7m12s.", "requests", "rate_limit_exceeded"),
        LIMITED,
        429,
        "rate_limit_exceeded",
        "7m12s",
        "rate_limit_error",
        wait_s=432,
    ),
    Vendor(
        "Groq TPM",
        413,
        openai(TPM, "tokens", "rate_limit_exceeded"),
        LIMITED,
        429,
        "rate_limit_exceeded",
        "TPM",
        "rate_limit_error",
    ),
    Vendor(
        "Google limit",
        429,
        [{"error": GOOGLE_QUOTA}],
        LIMITED,
        429,
        "rate_limit_exceeded",
        "quota",
        wait_s=36.5,
        details=("status", "details"),
    ),
    Vendor(
        "OpenRouter limit",
        429,
        openai(
            "Provider returned error",
            None,
            429,
            metadata={
                "raw": "x is temporarily rate-limited upstream. Retry in 9 seconds.",
                "provider_name": "P",
            },
        ),
        LIMITED,
        429,
        "rate_limit_exceeded",
        "temporarily rate-limited",
        wait_s=9,
        details=("metadata",),
    ),
    Vendor(
        "Retry-After",
        429,
        {"message": "Requests rate limit exceeded"},
        LIMITED,
        429,
        "rate_limit_exceeded",
        "Requests",
        headers={"retry-after": "3600"},
        wait_s=3600,
    ),
    Vendor(
        "Bedrock",
        400,
        {"message": "Too many requests, please wait before trying again."},
        LIMITED,
        429,
        "rate_limit_exceeded",
        "Too many",
        headers={"x-amzn-errortype": "ThrottlingException:http://x"},
    ),
    Vendor(
        "AWS type",
        400,
        {"__type": "com.amazon.coral.service#ThrottlingException", "message": "slow"},
        LIMITED,
        429,
        "rate_limit_exceeded",
        "slow",
    ),
    Vendor(
        "Apigee quota",
        429,
        {
            "fault": {
                "faultstring": "Rate limit quota violation.",
                "detail": {"errorcode": "policies.ratelimit.QuotaViolation"},
            }
        },
        LIMITED,
        429,
        "rate_limit_exceeded",
        "violation",
    ),
    Vendor(
        "reset header",
        429,
        b"",
        LIMITED,
        429,
        "rate_limit_exceeded",
        "rate limit",
        headers={
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
            "x-ratelimit-remaining-requests": "9",
            "x-ratelimit-reset-requests": "1h0m0s",
        },
        wait_s=360,
    ),
    # Failures
    Vendor(
        "OpenAI 500",
        500,
        openai("The server had an error", "server_error"),
        FAILED,
        502,
        "upstream_error",
        "server had",
        "server_error",
    ),
    Vendor(
        "500 as mistake",
        500,
        openai("boom", INVALID, "invalid_value"),
        FAILED,
        502,
        "upstream_error",
        "boom",
        "server_error",
    ),
    Vendor(
        "OpenAI 503",
        503,
        openai("The engine is overloaded", "server_error"),
        DOWN,
        503,
        "upstream_unavailable",
        "overloaded",
        "server_error",
    ),
    Vendor(
        "Anthropic 529",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        DOWN,
        503,
        "upstream_unavailable",
        "Overloaded",
    ),
    Vendor(
        "500 overloaded",
        500,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        DOWN,
        503,
        "upstream_unavailable",
        "Overloaded",
    ),
    Vendor(
        "500 limited", 500, openai("slow down", "x", "429"), LIMITED, 429, "rate_limit_exceeded", "slow down"
    ),
    Vendor("504", 504, b"", TIMEOUT, 504, "upstream_timeout", "timed out"),
    Vendor("524", 524, b"error code: 524", TIMEOUT, 504, "upstream_timeout", "524"),
    Vendor(
        "HTML 503",
        503,
        HTML,
        DOWN,
        503,
        "upstream_unavailable",
        "HTTP 503 with an HTML page",
        headers={"content-type": "text/html; charset=utf-8"},
    ),
    Vendor(
        "HTML 404",
        404,
        HTML,
        REJECTED,
        404,
        "model_not_found",
        "HTTP 404 with an HTML page",
        is_blameless=True,
    ),
    Vendor(
        "HTML in JSON",
        502,
        openai(HTML.decode(), "server_error"),
        FAILED,
        502,
        "upstream_error",
        "HTTP 502 with an HTML page",
    ),
    Vendor(
        "text as HTML",
        502,
        b"Bad gateway at gw7.internal.example",
        FAILED,
        502,
        "upstream_error",
        "HTTP 502 with an HTML page",
        headers={"content-type": "text/html"},
    ),
    Vendor(
        "XML",
        403,
        b"<?xml version='1.0'?><Error><Code>x</Code></Error>",
        DENIED,
        502,
        "upstream_access_denied",
        "HTTP 403 with an HTML page",
    ),
    Vendor("plain text", 500, b"no healthy upstream", FAILED, 502, "upstream_error", "no healthy upstream"),
)
