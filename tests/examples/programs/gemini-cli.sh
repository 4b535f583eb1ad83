# In ~/.gemini/settings.json, "security": {"auth": {"selectedType": "gemini-api-key"}} answers its question for a login.
export GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8000
export GEMINI_API_KEY=KEY
export GEMINI_MODEL=groq/openai/gpt-oss-120b
gemini
