// Vercel's AI SDK with OpenAI's provider, which speaks the Responses API.

import { createOpenAI } from '@ai-sdk/openai';
import { driveWith } from './ai_sdk.mjs';
import { FACTS } from './harness.mjs';

await driveWith((apiKey) => createOpenAI({ baseURL: FACTS.base_url, apiKey }));
