"""openai for Python: a stream through the proxy.

export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=KEY
python openai_python.py groq/llama-3.3-70b-versatile
"""

import sys

from openai import OpenAI

client = OpenAI()  # address and key from the environment
with client.chat.completions.create(
    model=sys.argv[1], messages=[{"role": "user", "content": "Hello there"}], stream=True
) as stream:
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
