// Vercel's AI SDK: a stream through the proxy.
//
// OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=KEY node vercel_ai_sdk.mjs groq/llama-3.3-70b-versatile

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const proxy = createOpenAICompatible({
  name: "proxy",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
});
const { textStream } = streamText({ model: proxy(process.argv[2]), prompt: "Hello there" });
for await (const text of textStream) process.stdout.write(text);
console.log();
