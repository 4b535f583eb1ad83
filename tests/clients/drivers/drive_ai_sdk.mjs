// Vercel's AI SDK with its provider for OpenAI-compatible servers.

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { driveWith } from './ai_sdk.mjs';
import { FACTS } from './harness.mjs';

await driveWith((apiKey) =>
  createOpenAICompatible({
    name: 'proxy',
    baseURL: FACTS.base_url,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  }),
);
