// One server in detail: why it is in its state, its instances, its figures, and the acts.

import { KeyedList, element, icon, setAttribute, setIcon, setText, show } from "./dom.js";
import { failures, latency, stateIcon, whole } from "./formats.js";
import { InstanceTable, instanceSummary } from "./instance_table.js";
import { serverLists } from "./server_lists.js";

// Each figure: its title, and how it is written.
const FIGURES = [
  ["Calls, last minute", (server) => whole(server.window_calls)],
  ["Failures", (server) => failures(server.window_failures, server.window_calls)],
  ["In flight", (server) => whole(server.inflight)],
  ["Waiting", (server) => whole(server.waiting)],
  ["p50", (server) => latency(server.p50_s)],
  ["p95", (server) => latency(server.p95_s)],
  ["p99", (server) => latency(server.p99_s)],
  ["Retry budget", (server) => whole(Math.floor(server.retry_budget ?? 0))],
];

/** Shows one server in the detail section of the page. */
export class ServerDetail {
  /**
   * @param fleet where the server is
   * @param acts what can be done to it
   * @param onClose called when the operator closes the section
   */
  constructor(fleet, acts, onClose) {
    this.fleet = fleet;
    this.acts = acts;
    this.onClose = onClose;
    this.node = document.getElementById("detail");
    this.id = null;
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) onClose();
    });
    fleet.onChange(() => this.render());
  }

  /** Show a server, or none. */
  open(id) {
    this.id = id;
    show(this.node, id !== null);
    if (id === null) {
      this.node.replaceChildren();
      return;
    }
    this.build(id);
    this.render();
    this.title.focus();
  }

  build(id) {
    this.title = element("h2", { id: "detail-title", tabindex: -1 }, id);
    const close = element("button", { type: "button", class: "quiet", "aria-label": `Close the details of ${id}` }, icon("close"));
    close.addEventListener("click", () => this.onClose());
    this.picture = icon("initializing");
    this.stateText = element("span");
    this.state = element("p", { class: "state" }, this.picture, this.stateText);
    this.reasons = new KeyedList(element("ul", { class: "reason-list" }), textItem);
    this.gone = element("p", { class: "problem", hidden: true }, "The gateway has no server of this name.");
    this.summary = element("p", { class: "minor" });
    this.instances = new InstanceTable();
    this.figures = FIGURES.map(([title]) => [title, element("dd")]);
    const figures = this.figures.map(([title, value]) => element("div", {}, element("dt", {}, title), value));
    this.content = element("div", {}, this.state, this.reasons.parent, this.actButtons(id));
    this.content.append(element("h3", {}, "Instances"), this.summary, this.instances.node);
    this.content.append(element("h3", {}, "Figures"), element("dl", { class: "facts" }, ...figures));
    this.content.append(...serverLists(id));
    this.node.replaceChildren(element("div", { class: "section-head" }, this.title, close), this.gone, this.content);
  }

  actButtons(id) {
    const group = element("div", { class: "acts", role: "group", "aria-label": `Actions for ${id}` });
    const add = (label, name, kind = null) => {
      const button = element("button", { type: "button", class: kind, "aria-label": `${label} ${id}` }, label);
      button.addEventListener("click", () => {
        const server = this.fleet.servers.get(id);
        if (server !== undefined) this.acts[name](server);
      });
      group.append(button);
      return button;
    };
    add("Scale…", "scale");
    add("Redeploy…", "redeploy");
    this.suspendButton = add("Suspend…", "suspend");
    this.drainButton = add("Drain…", "drain");
    this.resumeButton = add("Resume", "resume");
    add("Undeploy…", "undeploy", "harmful quiet");
    return group;
  }

  render() {
    if (this.id === null) return;
    const server = this.fleet.servers.get(this.id);
    show(this.gone, server === undefined && this.fleet.gateway !== null);
    show(this.content, server !== undefined);
    if (server === undefined) return;
    setText(this.stateText, server.state);
    setIcon(this.picture, stateIcon(server.state));
    setAttribute(this.state, "data-state", server.state);
    const reasons = [...(server.reasons ?? []), ...(server.tls_verify === false ? ["it accepts every TLS certificate"] : [])];
    this.reasons.update(reasons, (each) => each);
    show(this.reasons.parent, reasons.length > 0);
    this.instances.update(server);
    setText(this.summary, instanceSummary(server));
    this.figures.forEach(([, value], at) => setText(value, FIGURES[at][1](server)));
    this.offer(server.state);
  }

  /** Offer what makes sense; if the button with the focus vanishes, the focus goes to the title. */
  offer(state) {
    const focused = document.activeElement;
    const isOut = state === "Maintenance" || state === "Stopped";
    show(this.resumeButton, isOut);
    show(this.suspendButton, state !== "Stopped");
    show(this.drainButton, !isOut);
    if (focused?.hidden && this.node.contains(focused)) this.title.focus();
  }
}

function textItem() {
  const node = element("li");
  return { node, update: (text) => setText(node, text) };
}
