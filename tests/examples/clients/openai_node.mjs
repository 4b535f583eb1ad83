// openai for Node: a stream through the proxy.
//
// OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=KEY node openai_node.mjs groq/llama-3.3-70b-versatile

import OpenAI from "openai";

const client = new OpenAI(); // address and key from the environment
const stream = await client.chat.completions.create({
  model: process.argv[2],
  messages: [{ role: "user", content: "Hello there" }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
console.log();
