// The connection to the gateway: snapshots at a slow pace, events as they come, and another attempt after each failure.

import { Problem, read } from "./api.js";
import { followEvents } from "./event_stream.js";

const SNAPSHOT_EVERY_MS = 5_000;
const SNAPSHOT_AFTER_EVENT_MS = 700;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;

/**
 * Keeps a fleet up to date.
 *
 * `onState(state, {problem, retryAt})` is told of each change: `off`, `connecting`, `live`, `polling` (no events),
 * `lost` (another attempt follows at `retryAt`), `unauthorized` and `forbidden` (no attempt follows).
 */
export class Connection {
  constructor({ fleet, onState, onEvent }) {
    this.fleet = fleet;
    this.onState = onState;
    this.onEvent = onEvent;
    this.state = "off";
    this.stopping = null;
    this.lastId = null;
    this.failed = 0;
    this.wake = () => {};
    this.refreshTimer = null;
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
    window.addEventListener("online", () => this.retryNow());
  }

  /** Begin again, with the token of now. */
  start() {
    this.stop();
    this.stopping = new AbortController();
    this.lastId = null;
    this.failed = 0;
    this.run(this.stopping.signal);
  }

  /** End all that is under way. */
  stop() {
    this.stopping?.abort();
    this.stopping = null;
    clearTimeout(this.refreshTimer);
    this.tell("off");
  }

  /** Do not wait any longer for the next attempt or snapshot. */
  retryNow() {
    this.wake();
  }

  /** Take a snapshot soon, once for all that ask. */
  refreshSoon() {
    if (this.refreshTimer !== null || this.stopping === null) return;
    this.refreshTimer = setTimeout(() => {
      this.refreshTimer = null;
      this.wake();
    }, SNAPSHOT_AFTER_EVENT_MS);
  }

  tell(state, about = {}) {
    this.state = state;
    this.onState(state, about);
  }

  async run(signal) {
    while (!signal.aborted) {
      try {
        if (this.failed === 0) this.tell("connecting");
        await this.session(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!this.survives(error)) return;
        await this.pause(this.delay(error), signal);
      }
    }
  }

  /** Take snapshots and read events until one of both fails. */
  async session(signal) {
    await this.takeSnapshot(signal);
    this.failed = 0;
    const ending = new AbortController();
    const both = AbortSignal.any([signal, ending.signal]);
    try {
      await Promise.race([this.takeSnapshots(both), this.takeEvents(both)]);
    } finally {
      ending.abort();
    }
  }

  async takeSnapshot(signal) {
    this.fleet.takeSnapshot(await read("snapshot", { signal }));
  }

  async takeSnapshots(signal) {
    for (;;) {
      await this.pause(SNAPSHOT_EVERY_MS, signal);
      // Nobody looks at a hidden tab; events still arrive.
      if (!document.hidden) await this.takeSnapshot(signal);
    }
  }

  async takeEvents(signal) {
    try {
      await followEvents({
        lastId: this.lastId,
        signal,
        onOpen: () => this.tell("live"),
        onEvent: (kind, record) => this.takeEvent(kind, record),
        onId: (id) => (this.lastId = id),
      });
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 404) throw error;
      this.tell("polling");
      await aborted(signal);
    }
    throw new Problem({ detail: "The gateway ended the stream of events." });
  }

  takeEvent(kind, record) {
    this.fleet.takeEvent(kind, record);
    this.onEvent(kind, record);
    this.refreshSoon();
  }

  /** Tell what happened; return whether another attempt makes sense. */
  survives(error) {
    const problem = error instanceof Problem ? error : new Problem({ detail: `The page failed: ${error.message}` });
    const isFinal = { 401: "unauthorized", 403: "forbidden" }[problem.status];
    if (isFinal !== undefined) {
      this.stopping = null;
      this.tell(isFinal, { problem });
      return false;
    }
    this.failed += 1;
    return true;
  }

  /** Return how many milliseconds to wait: longer each time, and not the same for all pages. */
  delay(error) {
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.failed - 1));
    const chosen = longest * (0.5 + Math.random() / 2);
    this.tell("lost", { problem: error, retryAt: Date.now() + chosen });
    return chosen;
  }

  async pause(ms, signal) {
    signal.throwIfAborted();
    let finish;
    const stopped = () => finish();
    await new Promise((resolve) => {
      finish = resolve;
      this.wake = resolve;
      signal.addEventListener("abort", stopped, { once: true });
      setTimeout(resolve, ms);
    });
    signal.removeEventListener("abort", stopped);
    signal.throwIfAborted();
  }
}

function aborted(signal) {
  return new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}
