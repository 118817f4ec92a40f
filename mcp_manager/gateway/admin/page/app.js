// The page: puts its parts together, and decides which of them is shown.

import { Acts } from "./acts.js";
import { Connection } from "./connection.js";
import { ConnectionState } from "./connection_state.js";
import { decoded, takeTokenFromAddress, token } from "./credentials.js";
import { setText, show } from "./dom.js";
import { EventLog } from "./event_log.js";
import { FileProblem } from "./file_problem.js";
import { Fleet } from "./fleet.js";
import { FleetTable } from "./fleet_table.js";
import { sentences } from "./formats.js";
import { GatewayState } from "./gateway_state.js";
import { ServerDetail } from "./server_detail.js";
import { SignIn } from "./sign_in.js";

const NO_RIGHT = "You may not use this page.";
const NOT_ACCEPTED = "The gateway does not accept this token.";

const fleet = new Fleet();
const log = new EventLog();
const connection = new Connection({ fleet, onState: connectionChanged, onEvent: (kind, record) => log.add(kind, record) });
const connectionState = new ConnectionState(connection);
const acts = new Acts(() => connection.refreshSoon());
const table = new FleetTable(fleet);
const detail = new ServerDetail(fleet, acts, closeDetail);
const signIn = new SignIn(begin);
new GatewayState(fleet);
new FileProblem(fleet, acts);
fleet.onChange(() => showFleet());

function begin() {
  signIn.close();
  connection.start();
}

function connectionChanged(state, about) {
  connectionState.update(state, about);
  show(document.getElementById("sign-out"), state !== "off" && state !== "unauthorized" && state !== "forbidden");
  if (state === "unauthorized") signOut(sentences(NOT_ACCEPTED, hintOf(about.problem)));
  if (state === "forbidden") signOut(sentences(NO_RIGHT, about.problem.message, about.problem.hint));
  showFleet();
}

function hintOf({ hint }) {
  // How to send a token is for programs.
  return /^send /i.test(hint) ? "" : hint;
}

function signOut(problem = "") {
  connection.stop();
  fleet.clear();
  log.clear();
  if (document.getElementById("dialog").open) document.getElementById("dialog").close();
  signIn.open(problem);
}

function showFleet() {
  const isKnown = fleet.gateway !== null;
  show(document.getElementById("fleet"), isKnown);
  show(document.getElementById("loading"), !isKnown && ["connecting", "lost"].includes(connection.state));
  const down = [...fleet.servers.values()].filter((server) => server.state === "Unhealthy").length;
  const parts = [down > 0 ? `${down} unhealthy` : "", detail.id ?? "", "mcp-manager"];
  setText(document.querySelector("title"), parts.filter(Boolean).join(" · "));
}

function followAddress() {
  if (takeTokenFromAddress()) begin();
  const found = /^#server=(.+)$/s.exec(location.hash);
  const id = found === null ? null : decoded(found[1]);
  if (id === detail.id) return;
  const before = detail.id;
  document.getElementById("fleet").classList.toggle("with-detail", id !== null);
  table.select(id);
  detail.open(id);
  if (id === null && before !== null) table.focus(before);
  showFleet();
}

function closeDetail() {
  history.pushState(null, "", location.pathname + location.search);
  followAddress();
}

document.getElementById("sign-out").addEventListener("click", () => signOut());
document.getElementById("deploy").addEventListener("click", () => acts.deploy());
document.querySelector(".skip").addEventListener("click", (event) => {
  // The address stays as it is: its fragment says which server is shown.
  event.preventDefault();
  document.getElementById("content").focus();
});
window.addEventListener("hashchange", followAddress);
window.addEventListener("popstate", followAddress);

takeTokenFromAddress();
if (token() === null) signIn.open();
else begin();
followAddress();
