// The list of events, newest first, and what each of them says.

import { element, icon, setAttribute, setText, show } from "./dom.js";
import { circuit, clock, counted, cut, duration, stateIcon } from "./formats.js";

const MOST = 200;
const LONGEST = 600;

// Each kind: its symbol, and its sentence about the server; without a server, about the gateway.
const KINDS = {
  server_state_changed: {
    icon: (record) => stateIcon(record.state),
    say: (record) => {
      const reasons = [...(record.reasons ?? []), record.error].filter(Boolean).join("; ");
      const outage = typeof record.outage_s === "number" ? ` after ${duration(record.outage_s)}` : "";
      return `is ${record.state}, was ${record.previous}${outage}${reasons ? `: ${reasons}` : ""}`;
    },
  },
  child_started: { icon: () => "healthy", say: (record) => `program of instance ${record.instance} is ready (pid ${record.pid})` },
  child_exited: {
    icon: () => "unhealthy",
    say: (record) => {
      const again = typeof record.restart_in_s === "number" ? `; starts again in ${duration(record.restart_in_s)}` : "";
      return `program of instance ${record.instance} ended: ${record.reason}${again}`;
    },
  },
  circuit_changed: {
    icon: (record) => (record.circuit === "Closed" ? "healthy" : "degraded"),
    say: (record) => `circuit of instance ${record.instance} is ${circuit(record.circuit)}: ${record.reason}`,
  },
  session_lost: { icon: () => "degraded", say: (record) => `instance ${record.instance} lost its session: ${record.reason}` },
  session_replaced: { icon: () => "healthy", say: (record) => `instance ${record.instance} has a new session` },
  server_deployed: { icon: () => "event", say: (record) => `was deployed (${record.transport}, ${counted(record.instances, "instance")})` },
  server_undeployed: { icon: () => "stopped", say: () => "was removed" },
  server_redeployed: { icon: () => "event", say: () => "has a new configuration" },
  server_scaled: { icon: () => "event", say: (record) => `scaled from ${record.previous} to ${record.instances} instances` },
  tools_changed: { icon: () => "event", say: () => "has changed its tools" },
  config_applied: { icon: () => "event", say: (record) => `The configuration was applied: ${applied(record)}` },
  events_missed: { icon: () => "degraded", say: (record) => `${record.count} events were missed` },
  missed: { icon: () => "degraded", say: () => "Some events were missed" },
};

/** Shows events. */
export class EventLog {
  constructor() {
    this.list = document.getElementById("event-list");
    this.pauseButton = document.getElementById("pause-events");
    this.waiting = [];
    this.isPaused = false;
    this.isDrawing = false;
    this.pauseButton.addEventListener("click", () => this.pause(!this.isPaused));
    document.getElementById("clear-events").addEventListener("click", () => this.clear());
  }

  /** Add an event; what comes between two frames is drawn at once. */
  add(kind, record) {
    this.waiting.push({ kind, record });
    if (this.waiting.length > MOST) this.waiting.shift();
    if (this.isPaused) this.showPause();
    else this.drawSoon();
  }

  /** Forget all events. */
  clear() {
    this.waiting = [];
    this.list.replaceChildren();
    this.showPause();
    show(document.getElementById("events-empty"), true);
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    setAttribute(this.pauseButton, "aria-pressed", String(isPaused));
    this.showPause();
    if (!isPaused) this.drawSoon();
  }

  showPause() {
    const more = this.isPaused && this.waiting.length > 0 ? ` (${this.waiting.length} more)` : "";
    setText(this.pauseButton, this.isPaused ? `Paused${more}` : "Pause");
  }

  drawSoon() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      if (!this.isPaused) this.draw();
    });
  }

  draw() {
    const entries = this.waiting.reverse().map(({ kind, record }) => entry(kind, record));
    this.waiting = [];
    this.list.prepend(...entries);
    while (this.list.children.length > MOST) this.list.lastElementChild.remove();
    show(document.getElementById("events-empty"), this.list.children.length === 0);
  }
}

function entry(kind, record) {
  const known = Object.hasOwn(KINDS, kind) ? KINDS[kind] : { icon: () => "event", say: () => kind.replaceAll("_", " ") };
  const at = typeof record.at === "string" ? record.at : new Date().toISOString();
  const said = element("span", { class: "said" });
  if (typeof record.server_id === "string") {
    said.append(element("a", { href: `#server=${encodeURIComponent(record.server_id)}` }, record.server_id), " ");
  }
  said.append(cut(known.say(record), LONGEST));
  const symbol = known.icon(record);
  return element("li", { "data-kind": symbol }, element("time", { datetime: at }, clock(at)), icon(symbol), said);
}

function applied(record) {
  const parts = ["deployed", "redeployed", "updated", "undeployed", "failed", "invalid"]
    .filter((name) => Array.isArray(record[name]) && record[name].length > 0)
    .map((name) => `${record[name].length} ${name}`);
  return parts.length > 0 ? parts.join(", ") : "nothing changed";
}
