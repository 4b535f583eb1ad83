export OPENAI_BASE_URL=http://127.0.0.1:8000/v1
export OPENAI_API_KEY=KEY
export OPENAI_MODEL=groq/openai/gpt-oss-120b
qwen --auth-type=openai
