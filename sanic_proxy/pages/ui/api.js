// Calls of the proxy. Every URL is relative to the page, so it works below a path prefix of a reverse proxy.

/** The answer was an error, or there was none (status 0). */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null, requestId = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, requestId });
  }
}

// The session's token: a page of another origin can make the browser send the cookie, but cannot know this.
let csrf = "";

/** @typedef {{kind: "admin"|"client", name: string, csrf: string, expires: string}} Session */

/** @returns {Promise<Session|null>} */
export async function session() {
  try {
    return accept(await call("GET", "ui/session"));
  } catch (error) {
    if (error.status === 401) return null;
    throw error;
  }
}

/** @returns {Promise<Session>} */
export const login = async (key) => accept(await call("POST", "ui/login", { key }));
export const logout = () => call("POST", "ui/logout");

function accept(found) {
  csrf = found.csrf;
  return found;
}

/** The JSON of an answer; null if it has none. Raises ApiError. */
export async function call(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, signal) => call("GET", path, undefined, signal);

/** A path with a query; parameters without a value are left out, lists are repeated. */
export function query(path, parameters) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of [value].flat())
      if (each !== "" && each !== null && each !== undefined) search.append(name, each);
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

async function send(method, path, body, signal) {
  const headers = method === "GET" ? {} : { "x-csrf-token": csrf };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, {
      method,
      headers,
      body: text,
      signal,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The proxy cannot be reached");
  }
  if (!response.ok) throw await failure(response, path);
  return response;
}

async function failure(response, path) {
  const body = await response.json().catch(() => null);
  const error = new ApiError(body?.error?.message ?? `The proxy answered with status ${response.status}`, {
    status: response.status,
    code: body?.error?.code ?? null,
    retryAfter: Number(response.headers.get("retry-after")) || null,
    requestId: response.headers.get("x-request-id"),
  });
  if (response.status === 401 && path !== "ui/login" && path !== "ui/session") {
    document.dispatchEvent(new CustomEvent("sessionend"));
  }
  return error;
}

/**
 * A streamed answer: its head, and the data of its server-sent events as they arrive.
 * @returns {Promise<{headers: Headers, events: AsyncGenerator<string>}>}
 */
export async function stream(path, body, signal) {
  const response = await send("POST", path, body, signal);
  return { headers: response.headers, events: eventData(response.body.pipeThrough(new TextDecoderStream())) };
}

/**
 * The data of each event of a stream of text. An event ends with an empty line; its `data:` lines are joined,
 * and lines that begin with a colon are comments. A piece of the stream may end anywhere, also between the
 * two bytes of CR LF.
 */
async function* eventData(text) {
  let rest = "";
  for await (const piece of chunks(text)) {
    rest = (rest + piece).replaceAll("\r\n", "\n");
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart())
        .join("\n");
      if (data) yield data;
    }
  }
}

// ReadableStream is not iterable in all browsers.
async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // also when the reader of the events leaves early
  }
}
