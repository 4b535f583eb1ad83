// openai-node.

import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { FACTS, check, getWeather, now, raised, raisedAsBroken, serve } from './harness.mjs';

const HELLO = [{ role: 'user', content: 'Hello' }];
const client = new OpenAI({ baseURL: FACTS.base_url, apiKey: FACTS.key, maxRetries: 0 });
const Trip = z.object({ city: z.string(), days: z.number().int() });

const create = (task, more = {}, options = {}) =>
  client.chat.completions.create({ model: task.model, messages: HELLO, ...more }, options);

async function all(items) {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}

async function text(task) {
  const answer = await create(task);
  check(answer.choices[0].message.content, FACTS.text, 'text');
  check(answer.choices[0].finish_reason, 'stop', 'finish reason');
  check(answer.usage, FACTS.usage, 'usage');
}

async function stream(task) {
  const chunks = await all(await create(task, { stream: true, stream_options: { include_usage: true } }));
  const choices = chunks.flatMap((chunk) => chunk.choices);
  check(choices.map((choice) => choice.delta.content ?? '').join(''), FACTS.text, 'text');
  check(choices.map((choice) => choice.finish_reason).filter(Boolean), ['stop'], 'finish reasons');
  check(chunks.at(-1).usage, FACTS.usage, 'usage');
  const helper = client.chat.completions.stream({ model: task.model, messages: HELLO });
  check((await helper.finalChatCompletion()).choices[0].message.content, FACTS.text, "the helper's text");
}

/** The client runs the tool and asks again by itself. */
async function roundTrip(task, streamed, cities) {
  const asked = [];
  const weather = (given) => {
    asked.push(given.city);
    return getWeather(given);
  };
  const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
  const tool = { name: FACTS.tool, parameters: schema, parse: JSON.parse, function: weather };
  const runner = client.chat.completions.runTools({
    model: task.model,
    messages: HELLO,
    tools: [{ type: 'function', function: tool }],
    stream: streamed,
  });
  check(await runner.finalContent(), FACTS.final, 'final text');
  check(asked, cities, 'cities asked for');
}

async function structured(task) {
  const wanted = { model: task.model, messages: HELLO, response_format: zodResponseFormat(Trip, 'trip') };
  const answer = await client.chat.completions.parse(wanted);
  check(answer.choices[0].message.parsed, FACTS.trip, 'object');
  const streamed = await client.chat.completions.stream(wanted).finalChatCompletion();
  check(streamed.choices[0].message.parsed, FACTS.trip, 'object of a stream');
}

async function wrongKey(task) {
  const other = client.withOptions({ apiKey: FACTS.wrong_key });
  const ask = () => other.chat.completions.create({ model: task.model, messages: HELLO });
  check((await raised(OpenAI.AuthenticationError, ask)).status, 401, 'status');
}

async function retried(task) {
  const answer = await create(task, {}, { maxRetries: 2 });
  check(answer.choices[0].message.content, FACTS.text, 'text');
}

async function rateLimited(task) {
  const error = await raised(OpenAI.RateLimitError, () => create(task));
  check(error.headers.get('retry-after'), String(FACTS.retry_after_s), 'Retry-After');
}

async function failed(task) {
  await raised(OpenAI.InternalServerError, () => create(task));
  await raised(OpenAI.InternalServerError, () => create(task, { stream: true }));
}

async function cut(task) {
  await raisedAsBroken(OpenAI.APIError, async () => all(await create(task, { stream: true })));
}

async function cancel(task) {
  const chunks = await create(task, { stream: true });
  for await (const _ of chunks) break;
  return now();
}

async function embeddings(task) {
  const made = await client.embeddings.create({ model: task.model, input: ['a', 'b'] });
  check(made.data.map((entry) => Array.from(entry.embedding)), FACTS.vectors, 'vectors');
  check(made.usage.prompt_tokens, 9, 'usage');
}

async function models(task) {
  const wanted = FACTS.models[task.provider];
  const listed = (await all(client.models.list())).map((entry) => entry.id);
  if (!listed.includes(wanted)) throw new Error(`${wanted} is not listed`);
  check((await client.models.retrieve(wanted)).id, wanted, 'model');
}

await serve({
  text,
  stream,
  slow: stream,
  tools: (task) => roundTrip(task, false, FACTS.cities.slice(0, 1)),
  'tools-stream': (task) => roundTrip(task, true, FACTS.cities.slice(0, 1)),
  parallel: (task) => roundTrip(task, true, FACTS.cities),
  interleaved: (task) => roundTrip(task, true, FACTS.cities),
  structured,
  'wrong-key': wrongKey,
  '429-retried': retried,
  '429-raised': rateLimited,
  500: failed,
  cut,
  cancel,
  embeddings,
  models,
});
