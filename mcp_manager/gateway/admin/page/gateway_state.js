// The gateway itself: whether it is ready, and how much is under way.

import { KeyedList, element, icon, setAttribute, setIcon, setText, show } from "./dom.js";
import { counted, duration, whole } from "./formats.js";

const MOST_REASONS = 5;

// Each fact: the name in the snapshot, its title, and how it is written.
const FACTS = [
  ["sessions", "Sessions", whole],
  ["requests", "Running requests", whole],
  ["streams", "Streams", whole],
  ["workers", "Workers", whole],
  ["uptime_s", "Uptime", duration],
];

/** Shows the state of the gateway. */
export class GatewayState {
  constructor(fleet) {
    const state = document.getElementById("gateway-state");
    this.state = state;
    this.picture = icon("healthy");
    this.text = element("span");
    state.append(this.picture, this.text);
    this.reasons = new KeyedList(document.getElementById("gateway-reasons"), reason);
    this.facts = new KeyedList(document.getElementById("gateway-facts"), fact);
    fleet.onChange(() => this.render(fleet));
  }

  render({ gateway }) {
    if (gateway === null) return;
    const reasons = Array.isArray(gateway.reasons) ? gateway.reasons.map(String) : [];
    const [name, symbol, state] = condition(gateway);
    setText(this.text, name);
    setIcon(this.picture, symbol);
    setAttribute(this.state, "data-state", state);
    const shown = reasons.slice(0, MOST_REASONS);
    if (reasons.length > shown.length) shown.push(`and ${counted(reasons.length - shown.length, "further reason")}`);
    this.reasons.update(shown, (each) => each);
    show(this.reasons.parent, reasons.length > 0);
    this.facts.update(FACTS.filter(([key]) => typeof gateway[key] === "number").map((each) => [...each, gateway]), ([key]) => key);
    setText(document.getElementById("version"), gateway.version ?? "");
  }
}

function condition(gateway) {
  if (gateway.draining) return ["Draining", "maintenance", "Maintenance"];
  return gateway.ready === false ? ["Not ready", "unhealthy", "Unhealthy"] : ["Ready", "healthy", "Healthy"];
}

function reason() {
  const node = element("li");
  return { node, update: (text) => setText(node, text) };
}

function fact([, title]) {
  const value = element("dd");
  const node = element("div", {}, element("dt", {}, title), value);
  return { node, update: ([key, , write, gateway]) => setText(value, write(gateway[key])) };
}
