# The prefix openai/ is aider's own: it sends the rest of the name.
export OPENAI_API_BASE=http://127.0.0.1:8000/v1
export OPENAI_API_KEY=KEY
aider --model openai/groq/openai/gpt-oss-120b
