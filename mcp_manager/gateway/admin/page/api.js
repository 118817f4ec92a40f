// Requests to the admin API.

import { token } from "./credentials.js";

/** Where the API is, also behind a proxy that puts the gateway under a path. */
export const API = new URL("../api/v1/", import.meta.url);

const READ_MS = 20_000;
const ACT_MS = 120_000;
// 202 Accepted
const STILL_GOING_ON = 202;

/** Why a request failed, in words: `detail` says what is wrong, `hint` the way out. `status` is 0 without an answer. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", hint = "", field = "" }) {
    super(detail || title || `The gateway responded with status ${status}.`);
    this.status = status;
    this.hint = hint;
    this.field = field;
  }
}

/** Read a resource; the path is relative to `/api/v1/`. */
export async function read(path, { signal } = {}) {
  const response = await request("GET", path, { signal, limit: READ_MS });
  try {
    return await response.json();
  } catch (error) {
    throw error instanceof SyntaxError ? new Problem({ detail: "The response of the gateway is not JSON" }) : unreached(error);
  }
}

/**
 * Change something; return whether it is complete, or goes on.
 *
 * @throws Problem also if some workers of the gateway did not do it
 */
export async function act(method, path, body) {
  const response = await request(method, path, { body, limit: ACT_MS });
  const missed = response.headers.get("Workers-Missed");
  if (missed !== null) {
    throw new Problem({ detail: `These workers of the gateway did not apply the change: ${missed}`, hint: "Try again" });
  }
  return response.status !== STILL_GOING_ON;
}

/** Return the path of a server, whose id may have any characters. */
export function serverPath(id, rest = "") {
  return `servers/${encodeURIComponent(id)}${rest}`;
}

/** Send a request with the token of this tab, and return the response as it is. */
export async function send(method, path, { body, signal, headers = {} } = {}) {
  const fields = { Authorization: `Bearer ${token() ?? ""}`, ...headers };
  if (body !== undefined) fields["Content-Type"] = "application/json";
  try {
    return await fetch(new URL(path, API), {
      method,
      headers: fields,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    throw unreached(error);
  }
}

/** Return the problem that a response tells. */
export async function problemOf(response) {
  let told = null;
  try {
    told = await response.json();
  } catch {
    // Not JSON: the page of a proxy, or nothing. The status says enough.
  }
  const text = (name) => (typeof told?.[name] === "string" ? told[name] : "");
  return new Problem({
    status: response.status,
    title: text("title") || response.statusText,
    detail: text("detail"),
    hint: text("hint"),
    field: text("field"),
  });
}

async function request(method, path, { body, signal, limit }) {
  const timer = AbortSignal.timeout(limit);
  const either = signal === undefined ? timer : AbortSignal.any([signal, timer]);
  const response = await send(method, path, { body, signal: either, headers: { Accept: "application/json" } });
  if (!response.ok) throw await problemOf(response);
  return response;
}

function unreached(error) {
  if (error.name === "AbortError") return error;
  if (error.name === "TimeoutError") return new Problem({ detail: "The gateway did not respond in time." });
  return new Problem({ detail: "The gateway cannot be reached." });
}
