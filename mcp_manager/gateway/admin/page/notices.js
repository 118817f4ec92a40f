// Results of acts, said once to screen readers and shown for a while.

import { element, icon } from "./dom.js";
import { sentences } from "./formats.js";

const SHOWN_MS = 8_000;
const MOST = 4;

/** Tell that something was done. */
export function tellResult(text) {
  add("result", text);
}

/** Tell that something failed, and the way out; it stays until it is dismissed. */
export function tellProblem(text, hint = "") {
  add("problem", sentences(text, hint));
}

function add(kind, text) {
  const place = document.getElementById("notices");
  const close = element("button", { type: "button", class: "quiet", "aria-label": `Dismiss: ${text}` }, icon("close"));
  const notice = element("div", { class: `notice ${kind}` }, icon(kind === "result" ? "healthy" : "unhealthy"));
  notice.append(element("p", {}, text), close);
  const remove = () => {
    const hadFocus = notice.contains(document.activeElement);
    notice.remove();
    if (hadFocus) document.getElementById("content").focus();
  };
  close.addEventListener("click", remove);
  if (kind === "result") setTimeout(() => notice.matches(":hover, :focus-within") || remove(), SHOWN_MS);
  place.append(notice);
  while (place.children.length > MOST) place.firstElementChild.remove();
}
