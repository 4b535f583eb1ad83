"""OpenAI's Agents SDK: an agent with a tool, by the Responses API, in front of any provider.

export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=KEY
python openai_agents.py groq/llama-3.3-70b-versatile
"""

import asyncio
import sys

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def main() -> None:
    """Run the agent once."""
    set_tracing_disabled(True)  # traces would go to OpenAI
    model = OpenAIResponsesModel(model=sys.argv[1], openai_client=AsyncOpenAI())
    agent = Agent(name="Calculator", instructions="Use the tool.", tools=[add], model=model)
    print((await Runner.run(agent, "Hello there")).final_output)


asyncio.run(main())
