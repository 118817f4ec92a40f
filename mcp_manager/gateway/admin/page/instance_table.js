// The table of a server's instances.

import { KeyedList, element, icon, setAttribute, setIcon, setText, show } from "./dom.js";
import { circuit, counted, failures, latency, shortError, whole } from "./formats.js";

const TITLES = ["No.", "Takes calls", "Circuit", "In flight", "Calls", "Latency"];

/** Shows the instances of one server. */
export class InstanceTable {
  constructor() {
    this.caption = element("caption", { class: "unseen" });
    const head = element("tr", {}, ...TITLES.map((title) => element("th", { scope: "col" }, title)));
    this.node = element("table", { class: "instances" }, this.caption, element("thead", {}, head));
    this.rows = new KeyedList(this.node, instanceRows, [this.caption, this.node.tHead]);
  }

  /** Show a server. */
  update(server) {
    setText(this.caption, `Instances of ${server.id}`);
    const instances = server.instances ?? [];
    // One that drains may have the number of one that takes over.
    const seen = new Map();
    const items = instances.map((each) => {
      const nth = seen.get(each.index) ?? 0;
      seen.set(each.index, nth + 1);
      return { each, server: server.id, key: `${each.index}/${nth}` };
    });
    this.rows.update(items, ({ key }) => key);
    show(this.node, instances.length > 0);
  }
}

/** Return two rows of an instance: its figures, and where it is and what failed, for which a cell is too narrow. */
function instanceRows({ each: { index } }) {
  const picture = icon("initializing");
  const available = element("span");
  const state = element("span", { class: "state" }, picture, available);
  const cells = TITLES.slice(2).map(() => element("td"));
  const where = element("span", { class: "minor where" });
  const error = element("span", { class: "error", hidden: true });
  const figures = element("tr", {}, element("th", { scope: "row" }, String(index)), element("td", {}, state), ...cells);
  const about = element("tr", {}, element("td", { colspan: TITLES.length }, where, error));
  const update = ({ each, server }) => {
    const [word, symbol] = availability(each);
    setText(available, word);
    setIcon(picture, symbol);
    setAttribute(state, "data-state", STATE_OF[symbol]);
    cells.forEach((cell, at) => setText(cell, figuresOf(each)[at]));
    setText(where, [each.where, each.pid ? `pid ${each.pid}` : "", protocol(each)].filter(Boolean).join(" · "));
    const failed = failureOf(each, server);
    setText(error, failed);
    show(error, failed !== "");
  };
  return { node: element("tbody", {}, figures, about), update };
}

function failureOf(each, server) {
  if (each.last_error) return shortError(each.last_error, server);
  return each.last_exit ? `its program last ended: ${each.last_exit.reason}` : "";
}

function figuresOf(each) {
  const retry = each.retry_after_s > 0 ? `, retry in ${latency(each.retry_after_s)}` : "";
  const isLimited = each.limit !== null && each.limit !== undefined;
  const failed = each.window_failures ? `, ${failures(each.window_failures, each.window_calls)} failed` : "";
  return [
    `${circuit(each.circuit)}${retry}`,
    isLimited ? `${whole(each.inflight)} of ${whole(each.limit)}` : whole(each.inflight),
    `${whole(each.window_calls)}${failed}`,
    latency(each.latency_s),
  ];
}

const STATE_OF = { healthy: "Healthy", initializing: "Initializing", maintenance: "Maintenance", degraded: "Degraded" };

function availability(each) {
  if (each.ejected_s > 0) return [`ejected for ${latency(each.ejected_s)}`, "degraded"];
  if (each.paused_s > 0) return [`paused for ${latency(each.paused_s)}`, "maintenance"];
  if (each.availability === "ready") return ["yes", "healthy"];
  return each.availability === "pending" ? ["if no other", "initializing"] : ["no", "maintenance"];
}

function protocol(each) {
  if (!each.era) return "no session";
  return `${each.era}${each.revision ? ` ${each.revision}` : ""}`;
}

/** Say in one line how many instances a server has. */
export function instanceSummary(server) {
  const draining = server.draining ? `, ${whole(server.draining)} draining` : "";
  return `${whole(server.ready)} of ${counted(server.desired, "instance")} ready${draining}`;
}
