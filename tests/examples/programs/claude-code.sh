# Claude Code speaks Anthropic's Messages API; the address has no /v1.
export ANTHROPIC_BASE_URL=http://127.0.0.1:8000
export ANTHROPIC_AUTH_TOKEN=KEY
export ANTHROPIC_MODEL=groq/openai/gpt-oss-120b
export ANTHROPIC_DEFAULT_HAIKU_MODEL=groq/openai/gpt-oss-20b # for small tasks
claude
