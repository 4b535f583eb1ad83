// What happens in all workers, as it happens: one connection for all views.

import { get, session } from "./api.js";

const MAX_SAMPLES = 300; // of one second each
const MAX_REQUESTS = 1000;
const MAX_RETRY_MS = 15_000;

/**
 * Dispatches "now", "requests", "target" and "state". `state` is "connecting", "open" or "lost", `samples`
 * are the last minutes of "now", `requests` the last ones, the latest first.
 *
 * An EventSource reconnects by itself while the network fails, and repeats the number of the last event it
 * got. It gives up after an answer that is no stream (a proxy that is starting, a session that has ended):
 * then this does it, with growing pauses, and fetches what was missed.
 */
export class Live extends EventTarget {
  constructor() {
    super();
    this.state = "connecting";
    this.samples = [];
    this.requests = [];
    this.hasOlder = true;
    this.retries = 0;
    this.timer = 0;
    this.source = null;
  }

  start() {
    this.source = new EventSource("admin/events?types=now,request,target");
    this.source.onopen = () => {
      this.retries = 0;
      this.setState("open");
      this.load().catch(() => {}); // the events alone are of use as well
    };
    this.source.onerror = () => {
      this.setState("lost");
      if (this.source?.readyState === EventSource.CLOSED) this.restart();
    };
    this.listen("now", (sample) => {
      this.samples.push(sample);
      if (this.samples.length > MAX_SAMPLES) this.samples.shift();
    });
    this.listen("request", (request) => this.add([request]));
    this.listen("target");
  }

  stop() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  listen(type, keep) {
    this.source.addEventListener(type, (event) => {
      const detail = JSON.parse(event.data);
      keep?.(detail);
      this.dispatchEvent(new CustomEvent(type, { detail }));
    });
  }

  restart() {
    this.stop();
    const pause = Math.min(MAX_RETRY_MS, 500 * 2 ** this.retries++);
    this.timer = setTimeout(async () => {
      try {
        if ((await session()) === null) document.dispatchEvent(new CustomEvent("sessionend"));
        else this.start();
      } catch {
        this.restart();
      }
    }, pause);
  }

  setState(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state"));
  }

  /** Fetch the last requests, or those before the oldest known one. */
  async load(before) {
    const size = 100;
    const { data } = await get(`admin/requests?limit=${size}${before ? `&before=${before}` : ""}`);
    if (before || this.requests.length === 0) this.hasOlder = data.length === size;
    this.add(data);
  }

  add(found) {
    const known = new Set(this.requests.map((request) => request.number));
    const fresh = found.filter((request) => !known.has(request.number));
    if (fresh.length === 0) return;
    this.requests = [...fresh, ...this.requests].sort((a, b) => b.number - a.number).slice(0, MAX_REQUESTS);
    this.dispatchEvent(new CustomEvent("requests", { detail: fresh }));
  }
}

/** Listen to some types until the returned function is called. */
export function follow(live, listeners) {
  for (const [type, listener] of Object.entries(listeners)) live.addEventListener(type, listener);
  return () => {
    for (const [type, listener] of Object.entries(listeners)) live.removeEventListener(type, listener);
  };
}
