// The stream of events (SSE). `EventSource` cannot send a token, so this reads the response of a plain request.

import { Problem, problemOf, send } from "./api.js";

const MOST_CHARACTERS = 4_000_000;

/** Cut a stream of text into events, as the HTML standard says ("Parsing an event stream"). */
export class EventParser {
  constructor({ onEvent, onId }) {
    this.onEvent = onEvent;
    this.onId = onId;
    this.rest = "";
    this.begin();
  }

  begin() {
    this.kind = "message";
    this.data = [];
    this.id = null;
  }

  /** Take a piece of the stream. */
  take(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    if (this.rest.length > MOST_CHARACTERS) throw new Problem({ detail: "An event of the gateway is too long." });
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      // An id alone is no event, but is where the stream goes on from.
      if (this.id !== null) this.onId(this.id);
      if (this.data.length > 0) this.onEvent(this.kind, this.data.join("\n"));
      this.begin();
      return;
    }
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (name === "event") this.kind = value;
    if (name === "data") this.data.push(value ?? "");
    if (name === "id") this.id = value;
  }
}

/**
 * Read events until the stream ends.
 *
 * @param lastId the last event that was seen; what came after it is sent again
 * @param onOpen called once the gateway has accepted the request
 * @param onEvent called with the kind and the record of each event
 * @param onId called with the id of the last event
 * @throws Problem if the gateway refuses, or the connection breaks
 */
export async function followEvents({ lastId, signal, onOpen, onEvent, onId }) {
  const headers = { Accept: "text/event-stream" };
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const response = await send("GET", "events", { signal, headers });
  if (!response.ok) throw await problemOf(response);
  onOpen();
  const parser = new EventParser({ onEvent: (kind, data) => onEvent(kind, parsed(data)), onId });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      parser.take(value);
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem({ detail: "The connection to the gateway broke." });
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(data) {
  try {
    const record = JSON.parse(data);
    return typeof record === "object" && record !== null ? record : {};
  } catch {
    return {};
  }
}
