// What the drivers of Vercel's AI SDK share: they differ in the provider.

import { APICallError, Output, embedMany, generateText, isStepCount, streamText, tool } from 'ai';
import { z } from 'zod';
import { FACTS, check, getWeather, now, raised, raisedAsBroken, serve } from './harness.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;

const USAGE = [FACTS.usage.prompt_tokens, FACTS.usage.completion_tokens];

// Makes a provider for a key; `driveWith` sets it.
let provider;

const request = (task, more = {}) => ({
  model: provider(FACTS.key)(task.model),
  prompt: 'Hello',
  maxRetries: 0,
  ...more,
});

/** A stream read to its end. The SDK gives errors to `onError` and as parts, and does not throw them. */
async function streamed(options) {
  const result = streamText({ onError: () => {}, ...options });
  let text = '';
  for await (const part of result.fullStream) {
    if (part.type === 'text-delta') text += part.text;
    if (part.type === 'error') throw part.error;
  }
  return { text, finishReason: await result.finishReason, usage: await result.usage };
}

function checkAnswer(answer) {
  check(answer.text, FACTS.text, 'text');
  check(answer.finishReason, 'stop', 'finish reason');
  check([answer.usage.inputTokens, answer.usage.outputTokens], USAGE, 'usage');
}

/** The client runs the tool and asks again by itself. */
async function roundTrip(task, read, cities) {
  const asked = [];
  const weather = tool({
    description: 'Tell the weather of a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: (given) => {
      asked.push(given.city);
      return getWeather(given);
    },
  });
  const answer = await read(request(task, { tools: { [FACTS.tool]: weather }, stopWhen: isStepCount(3) }));
  check(asked, cities, 'cities asked for');
  check(answer.text.endsWith(FACTS.final), true, `final text ${answer.text}`);
  check(answer.finishReason, 'stop', 'finish reason');
}

async function structured(task) {
  const schema = z.object({ city: z.string(), days: z.number().int() });
  const wanted = request(task, { output: Output.object({ schema }) });
  check((await generateText(wanted)).output, FACTS.trip, 'object');
  check(await streamText(wanted).output, FACTS.trip, 'object of a stream');
}

async function status(kind, act) {
  check((await raised(APICallError, act)).statusCode, kind, 'status');
}

async function failed(task) {
  const error = await raised(APICallError, () => generateText(request(task)));
  check(error.statusCode >= 500, true, `status ${error.statusCode}`);
  await raised(APICallError, () => streamed(request(task)));
}

async function cut(task) {
  await raisedAsBroken(Error, () => streamed(request(task)));
}

async function cancel(task) {
  const controller = new AbortController();
  const result = streamText(request(task, { abortSignal: controller.signal, onError: () => {} }));
  let left_at;
  // Heartbeats are not shown to the user, who would leave after some time without an answer.
  const timer = setTimeout(() => {
    left_at = now();
    controller.abort();
  }, 1000);
  for await (const part of result.fullStream) if (part.type === 'abort') break;
  clearTimeout(timer);
  return left_at;
}

async function embeddings(task) {
  const model = provider(FACTS.key).embeddingModel(task.model);
  const made = await embedMany({ model, values: ['a', 'b'], maxRetries: 0 });
  check(made.embeddings, FACTS.vectors, 'vectors');
  check(made.usage.tokens, 9, 'usage');
}

const FEATURES = {
  text: async (task) => checkAnswer(await generateText(request(task))),
  stream: async (task) => checkAnswer(await streamed(request(task))),
  slow: async (task) => checkAnswer(await streamed(request(task))),
  tools: (task) => roundTrip(task, generateText, FACTS.cities.slice(0, 1)),
  'tools-stream': (task) => roundTrip(task, streamed, FACTS.cities.slice(0, 1)),
  parallel: (task) => roundTrip(task, streamed, FACTS.cities),
  interleaved: (task) => roundTrip(task, streamed, FACTS.cities),
  structured,
  'wrong-key': (task) => {
    const model = provider(FACTS.wrong_key)(task.model);
    return status(401, () => generateText(request(task, { model })));
  },
  '429-retried': async (task) => checkAnswer(await generateText(request(task, { maxRetries: 2 }))),
  '429-raised': (task) => status(429, () => generateText(request(task))),
  500: failed,
  cut,
  cancel,
  embeddings,
};

/** Serve all features with the providers that `made` makes of a key. */
export function driveWith(made) {
  provider = made;
  return serve(FEATURES);
}
