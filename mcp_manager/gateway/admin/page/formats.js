// Write numbers, times and states for people.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TWO_DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const THREE_DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** The states of a server, worst first; the same order sorts the table. */
export const STATES = ["Unhealthy", "Degraded", "Initializing", "Maintenance", "Stopped", "Healthy"];

/** Write a number without decimals. */
export function whole(value) {
  return WHOLE.format(value ?? 0);
}

/** Write a count with its noun: `1 server`, `2 servers`. */
export function counted(count, noun, plural = `${noun}s`) {
  return `${whole(count)} ${count === 1 ? noun : plural}`;
}

/** Write a latency in seconds with a unit that fits; a dash without one. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.000995) return `${TWO_DIGITS.format(seconds * 1000)}\u00a0ms`;
  if (seconds < 0.9995) return `${THREE_DIGITS.format(seconds * 1000)}\u00a0ms`;
  return seconds < 120 ? `${THREE_DIGITS.format(seconds)}\u00a0s` : duration(seconds);
}

/** Write a duration in seconds with its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const total = Math.max(0, Math.round(seconds));
  const days = Math.floor(total / 86400);
  const hours = Math.floor((total % 86400) / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${total % 60} s`;
  return `${total} s`;
}

/** Write the time of day of an ISO 8601 time. */
export function clock(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? String(text) : CLOCK.format(at);
}

/** Write how many of the calls failed: `3 (12%)`. */
export function failures(failed, calls) {
  if (!failed) return "0";
  const share = calls > 0 ? (100 * failed) / calls : 100;
  return `${whole(failed)}\u00a0(${share < 1 ? "<1" : whole(share)}%)`;
}

/** Return the name of the symbol of a server's state. */
export function stateIcon(state) {
  return STATES.includes(state) ? state.toLowerCase() : "initializing";
}

/** Write the state of a circuit: `half open`. */
export function circuit(state) {
  return state === "HalfOpen" ? "half open" : String(state).toLowerCase();
}

/** Return the text of an error without what is said beside it: the server, and whether the request was sent. */
export function shortError(text, server) {
  const said = `on server '${server}': `;
  const at = text.indexOf(said);
  return (at < 0 ? text : text.slice(at + said.length)).replace(/ \[delivery: \w+\]/, "");
}

/** Cut a text that servers may have made as long as they like. */
export function cut(text, longest) {
  return text.length > longest ? `${text.slice(0, longest)}…` : text;
}

/** Write texts as sentences, one after the other; empty ones are left out. */
export function sentences(...texts) {
  const written = texts.map((text) => String(text ?? "").trim()).filter(Boolean);
  return written.map((text) => text[0].toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".")).join(" ");
}
