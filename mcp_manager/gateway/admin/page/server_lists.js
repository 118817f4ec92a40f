// Lists of a server that are read when an operator opens them: its tools, its last calls, its standard error.

import { read, serverPath } from "./api.js";
import { element, setText } from "./dom.js";
import { clock, counted, cut, latency, sentences } from "./formats.js";

const LONGEST = 2_000;

/** Return the sections of a server; each reads its list when it is opened, and again on demand. */
export function serverLists(id) {
  return [
    section("Tools", id, "/tools", toolsOf),
    section("Last calls", id, "/flights", flightsOf),
    section("Standard error", id, "/stderr", stderrOf),
    section("Configuration", id, "", configOf),
  ];
}

function section(title, id, rest, show) {
  const body = element("div", { class: "list-body" });
  const again = element("button", { type: "button", "aria-label": `Reload: ${title} of ${id}` }, "Reload");
  const node = element("details", { class: "list" }, element("summary", {}, title), body);
  const load = async () => {
    const state = element("p", { class: "minor" }, "Loading…");
    body.replaceChildren(state);
    try {
      body.replaceChildren(...show(await read(serverPath(id, rest))), again);
    } catch (error) {
      setText(state, sentences(error.message, error.hint));
      body.append(again);
    }
  };
  again.addEventListener("click", async () => {
    await load();
    again.focus();
  });
  node.addEventListener("toggle", () => node.open && load());
  return node;
}

function listOf(answer, name) {
  const found = Array.isArray(answer) ? answer : answer?.[name];
  return Array.isArray(found) ? found : [];
}

function toolsOf(answer) {
  const tools = listOf(answer, "tools");
  if (tools.length === 0) return [element("p", { class: "minor" }, "This server has no tools.")];
  const items = tools.map((tool) => {
    const item = element("li", {}, element("code", {}, String(tool.name)));
    for (const mark of marksOf(tool)) item.append(" ", element("span", { class: "mark" }, mark));
    if (tool.title) item.append(element("p", {}, String(tool.title)));
    if (tool.description) item.append(element("p", { class: "description" }, cut(String(tool.description), LONGEST)));
    return item;
  });
  return [element("p", { class: "minor" }, counted(tools.length, "tool")), element("ul", { class: "tool-list" }, ...items)];
}

function marksOf(tool) {
  const marks = tool.pin === "pinned" ? ["pinned"] : [];
  if (tool.pin === "different") marks.push(tool.difference ? `differs from its pin: ${tool.difference}` : "differs from its pin");
  return tool.blocked ? [...marks, "blocked"] : marks;
}

function flightsOf(answer) {
  const flights = listOf(answer, "flights");
  if (flights.length === 0) return [element("p", { class: "minor" }, "No calls yet.")];
  const titles = ["Started", "Call", "Result", "Duration"];
  const rows = flights.map((flight) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, clock(flight.started_at)),
      element("td", {}, [flight.method, flight.tool].filter(Boolean).join(" ")),
      element("td", {}, [flight.error ?? flight.status, attempts(flight)].filter(Boolean).join(", ")),
      element("td", { class: "number" }, latency(flight.total_s)),
    ),
  );
  const heads = titles.map((title, at) => element("th", { scope: "col", class: at === titles.length - 1 ? "number" : null }, title));
  const head = element("tr", {}, ...heads);
  const caption = element("caption", { class: "unseen" }, "Last calls, newest first");
  return [element("table", { class: "flights" }, caption, element("thead", {}, head), element("tbody", {}, ...rows))];
}

function attempts(flight) {
  return flight.attempts > 1 ? counted(flight.attempts, "attempt") : "";
}

function stderrOf(answer) {
  const lines = listOf(answer, "lines").map((line) => `${clock(line.at)} ${line.instance}: ${line.text}`);
  if (lines.length === 0) return [element("p", { class: "minor" }, "No output yet. Only programs have standard error.")];
  return [text(lines.join("\n"), "Standard error")];
}

function configOf(answer) {
  return [text(JSON.stringify(answer?.config ?? answer, null, 2), "Configuration")];
}

function text(content, label) {
  // It scrolls, so the keyboard must reach it.
  return element("pre", { tabindex: 0, role: "region", "aria-label": label }, content);
}
