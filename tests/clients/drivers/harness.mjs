// What the Node drivers share: the counterpart of harness.py, which says how a driver works.

import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';

export const FACTS = JSON.parse(process.env.FACTS);

export function check(actual, expected, what) {
  if (!isDeepStrictEqual(actual, expected)) {
    throw new Error(`${what}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
  }
}

/** The exception, of `kind`, that `act` has to throw. */
export async function raised(kind, act) {
  let result;
  try {
    result = await act();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`no exception, but ${JSON.stringify(result)}`);
}

/** `read` has to throw, with what the proxy says of a stream that broke off. */
export async function raisedAsBroken(kind, read) {
  const { message } = await raised(kind, read);
  if (!message.includes(FACTS.broken)) throw new Error(`it says ${message}`);
}

/** When the client left, in seconds of the wall clock. */
export const now = () => Date.now() / 1000;

export const getWeather = ({ city }) => `${FACTS.result}${city}`;

export async function serve(features) {
  const answer = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);
  // The clients may print what they like: only the answers go to the runner.
  for (const name of ['log', 'info', 'debug']) console[name] = console.error;
  answer({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) {
    const task = JSON.parse(line);
    try {
      const left_at = (await features[task.feature](task)) ?? null;
      answer({ ...task, ok: true, why: '', left_at });
    } catch (error) {
      const why = `${error.name}: ${error.message}`.split(/\s+/).join(' ').slice(0, 300);
      answer({ ...task, ok: false, why });
    }
  }
}
