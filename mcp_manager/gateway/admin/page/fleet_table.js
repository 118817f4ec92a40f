// The table of servers: found by text, chosen by state, sorted by any column, and changed in place.

import { arrange, element, icon, setAttribute, setIcon, setText, show } from "./dom.js";
import { STATES, counted, cut, failures, latency, shortError, stateIcon, whole } from "./formats.js";

// Each column: its title, what it is sorted by, whether the largest comes first, and which width it needs to be shown.
const COLUMNS = [
  { name: "server", title: "Server", sortBy: (server) => server.id.toLowerCase() },
  { name: "state", title: "State", sortBy: (server) => STATES.indexOf(server.state) },
  { name: "ready", title: "Ready", about: "instances with a session, of all", sortBy: (s) => s.ready - s.desired },
  { name: "inflight", title: "In flight", about: "running calls", largest: true, width: "wide", sortBy: (s) => s.inflight },
  { name: "calls", title: "Calls", about: "of the last minute", largest: true, width: "wide", sortBy: (s) => s.window_calls },
  { name: "failures", title: "Failures", about: "of these calls", largest: true, width: "wide", sortBy: (s) => s.window_failures },
  { name: "p50", title: "p50", about: "median latency", largest: true, width: "widest", sortBy: (s) => s.p50_s ?? -1 },
  { name: "p95", title: "p95", about: "latency", largest: true, sortBy: (s) => s.p95_s ?? -1 },
  { name: "p99", title: "p99", about: "latency", largest: true, width: "widest", sortBy: (s) => s.p99_s ?? -1 },
];

// How many rows are drawn at first, and further ones when the last is nearly in view: layouts of 500 take long.
const ROWS_AT_ONCE = 100;

// Two lines of them are in view.
const LONGEST = 300;

// What the configuration says if it says nothing.
const DEFAULT_TYPE = "mcp";

class Row {
  constructor(server) {
    this.link = element("a", { class: "server-link", href: `#server=${encodeURIComponent(server.id)}` }, server.id);
    this.tags = element("span", { class: "minor" });
    this.picture = icon("initializing");
    this.stateText = element("span");
    this.state = element("span", { class: "state" }, this.picture, this.stateText);
    this.reasons = element("span", { class: "minor reasons" });
    this.cells = new Map();
    this.node = element("tr", {}, element("th", { scope: "row", class: "server" }, this.link, this.tags));
    this.node.append(element("td", { class: "state-cell" }, this.state, this.reasons));
    for (const { name, width } of COLUMNS.slice(2)) {
      const cell = element("td", { class: width ? `number ${width}` : "number" });
      this.cells.set(name, cell);
      this.node.append(cell);
    }
    this.underWay = element("span");
    this.waiting = element("span", { class: "minor waiting" });
    this.cells.get("inflight").append(this.underWay, this.waiting);
  }

  update(server) {
    if (this.server === server) return;
    this.server = server;
    const kinds = [server.server_type === DEFAULT_TYPE ? "" : server.server_type, ...(server.tags ?? [])].filter(Boolean);
    const reasons = [...(server.reasons ?? []), ...errorsOf(server)];
    this.text = [server.id, ...kinds, server.state, ...reasons].join("\n").toLowerCase();
    setText(this.tags, kinds.join(" · "));
    setIcon(this.picture, stateIcon(server.state));
    setAttribute(this.state, "data-state", server.state);
    setText(this.stateText, server.state);
    setText(this.reasons, cut(reasons.join("; "), LONGEST));
    this.set("ready", `${whole(server.ready)} / ${whole(server.desired)}`);
    setText(this.underWay, whole(server.inflight));
    setText(this.waiting, server.waiting ? `+${whole(server.waiting)} waiting` : "");
    this.set("calls", whole(server.window_calls));
    this.set("failures", failures(server.window_failures, server.window_calls));
    for (const name of ["p50", "p95", "p99"]) this.set(name, latency(server[`${name}_s`]));
    setAttribute(this.cells.get("ready"), "data-short", server.ready < server.desired);
    setAttribute(this.cells.get("failures"), "data-some", server.window_failures > 0);
  }

  set(name, text) {
    setText(this.cells.get(name), text);
  }
}

/** Return the last error of an instance if the server is not well: it says more than the reasons. */
function errorsOf(server) {
  if (server.state !== "Unhealthy" && server.state !== "Degraded") return [];
  return (server.instances ?? []).flatMap((each) => (each.last_error ? [shortError(each.last_error, server.id)] : [])).slice(0, 1);
}

/** Shows the servers of a fleet in the table of the page. */
export class FleetTable {
  constructor(fleet) {
    this.fleet = fleet;
    this.rows = new Map();
    this.sorting = { column: COLUMNS[1], isReversed: false };
    this.chosenState = null;
    this.selected = null;
    this.search = document.getElementById("search");
    this.body = document.getElementById("fleet-rows");
    this.table = document.getElementById("fleet-table");
    this.empty = document.getElementById("fleet-empty");
    this.shownCount = document.getElementById("fleet-count");
    this.filters = document.getElementById("state-filters");
    this.filterButtons = new Map([null, ...STATES].map((state) => [state, this.filterButton(state)]));
    this.headers = COLUMNS.map((column) => this.header(column));
    document.getElementById("fleet-head").append(...this.headers);
    this.more = document.getElementById("fleet-more");
    this.limit = ROWS_AT_ONCE;
    this.more.addEventListener("click", () => this.showMore());
    this.watcher = new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && this.showMore(), {
      rootMargin: "600px",
    });
    this.watcher.observe(this.more);
    this.search.addEventListener("input", () => this.renderFromTop());
    this.markSorting();
    fleet.onChange(() => this.render());
  }

  /** Mark the server that is shown in detail. */
  select(id) {
    const before = this.selected;
    this.selected = id;
    for (const each of [before, id]) if (this.rows.has(each)) this.mark(this.rows.get(each), each);
  }

  mark(row, id) {
    setAttribute(row.link, "aria-current", id === this.selected ? "true" : null);
  }

  /** Set the focus to the link of a server, or to the search if there is none. */
  focus(id) {
    (this.rows.get(id)?.link ?? this.search).focus();
  }

  showMore() {
    this.limit += ROWS_AT_ONCE;
    this.render();
    // Whoever scrolls on at once may see it again before the observer saw it leave, and only changes are told.
    this.watcher.unobserve(this.more);
    this.watcher.observe(this.more);
  }

  renderFromTop() {
    this.limit = ROWS_AT_ONCE;
    this.render();
  }

  render() {
    const { servers } = this.fleet;
    for (const [id, server] of servers) this.row(id, server).update(server);
    for (const id of [...this.rows.keys()]) if (!servers.has(id)) this.rows.delete(id);
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = [...this.rows.values()].filter((row) => this.isWanted(row, words));
    wanted.sort((one, other) => this.compare(one.server, other.server));
    const drawn = wanted.slice(0, this.limit);
    arrange(this.body, drawn.map((row) => row.node));
    show(this.more, drawn.length < wanted.length);
    setText(this.more, `Show more of ${counted(wanted.length, "server")}`);
    this.renderFilters();
    this.renderEmpty(wanted.length);
  }

  row(id, server) {
    if (!this.rows.has(id)) {
      const row = new Row(server);
      this.mark(row, id);
      this.rows.set(id, row);
    }
    return this.rows.get(id);
  }

  isWanted(row, words) {
    const isChosen = this.chosenState === null || row.server.state === this.chosenState;
    return isChosen && words.every((word) => row.text.includes(word));
  }

  compare(one, other) {
    const { column, isReversed } = this.sorting;
    const [a, b] = [column.sortBy(one), column.sortBy(other)];
    const sign = Boolean(column.largest) === isReversed ? 1 : -1;
    if (a !== b) return a < b ? -sign : sign;
    return one.id < other.id ? -1 : 1;
  }

  header(column) {
    const button = element("button", { type: "button", class: "sort", title: column.about }, column.title, icon("sort"));
    button.addEventListener("click", () => {
      const isSame = this.sorting.column === column;
      this.sorting = { column, isReversed: isSame && !this.sorting.isReversed };
      this.markSorting();
      this.renderFromTop();
    });
    const classes = [column.width ?? "", COLUMNS.indexOf(column) > 1 ? "number" : ""].join(" ").trim();
    return element("th", { scope: "col", class: classes || null }, button);
  }

  markSorting() {
    const { column, isReversed } = this.sorting;
    const direction = Boolean(column.largest) === isReversed ? "ascending" : "descending";
    this.headers.forEach((header, at) => setAttribute(header, "aria-sort", COLUMNS[at] === column ? direction : null));
  }

  filterButton(state) {
    const count = element("span", { class: "count" });
    const label = state === null ? "All" : state;
    const button = element("button", { type: "button", class: "filter", "aria-pressed": state === null ? "true" : "false" });
    button.append(...(state === null ? [] : [icon(stateIcon(state))]), `${label} `, count);
    setAttribute(button, "data-state", state);
    button.addEventListener("click", () => {
      this.chosenState = state;
      for (const [each, { button: other }] of this.filterButtons) setAttribute(other, "aria-pressed", String(each === state));
      this.renderFromTop();
    });
    this.filters.append(button);
    return { button, count };
  }

  renderFilters() {
    const counts = new Map();
    for (const { state } of this.fleet.servers.values()) counts.set(state, (counts.get(state) ?? 0) + 1);
    for (const [state, { button, count }] of this.filterButtons) {
      const found = state === null ? this.fleet.servers.size : (counts.get(state) ?? 0);
      setText(count, whole(found));
      show(button, state === null || found > 0 || state === this.chosenState);
    }
  }

  renderEmpty(shown) {
    const all = this.fleet.servers.size;
    show(this.table, shown > 0);
    show(this.empty, shown === 0);
    show(document.getElementById("fleet-tools"), all > 0);
    const isFiltered = all > 0;
    setText(this.empty.querySelector("h3"), isFiltered ? "No server matches" : "There are no servers");
    setText(
      this.empty.querySelector("p"),
      isFiltered
        ? "Change the search, or choose all states."
        : "Deploy one here, or add it to the configuration file of the gateway.",
    );
    setText(this.shownCount, shown === all ? counted(all, "server") : `${whole(shown)} of ${counted(all, "server")}`);
  }
}
