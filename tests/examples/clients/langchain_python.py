"""LangChain: a stream through the proxy.

export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=KEY
python langchain_python.py groq/llama-3.3-70b-versatile
"""

import os
import sys

from langchain_openai import ChatOpenAI

model = ChatOpenAI(model=sys.argv[1], base_url=os.environ["OPENAI_BASE_URL"])
for chunk in model.stream("Hello there"):
    print(chunk.content, end="", flush=True)
print()
