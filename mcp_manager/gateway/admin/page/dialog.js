// The one dialog of the page: a question, what it needs to know, and the problem if the act fails.

import { element, setAttribute, setText } from "./dom.js";
import { sentences } from "./formats.js";

const dialog = document.getElementById("dialog");
const form = document.getElementById("dialog-form");
const cancel = document.getElementById("dialog-cancel");
const confirm = document.getElementById("dialog-confirm");
const problem = document.getElementById("dialog-problem");
let question = null;

/**
 * Ask before an act.
 *
 * @param title the question
 * @param body elements between the title and the buttons
 * @param action the label of the button that acts
 * @param isHarmful whether it cannot be undone or stops traffic: then `Cancel` has the focus first
 * @param act acts; the dialog closes when its promise is fulfilled, and shows the problem when it is rejected
 */
export function ask({ title, body, action, isHarmful = false, act }) {
  question = { act, isBusy: false };
  setText(document.getElementById("dialog-title"), title);
  document.getElementById("dialog-body").replaceChildren(...body);
  setText(confirm, action);
  confirm.className = isHarmful ? "harmful" : "primary";
  tell("");
  busy(false);
  dialog.showModal();
  (dialog.querySelector("input, textarea") ?? (isHarmful ? cancel : confirm)).focus();
}

/** Return a labelled field of a dialog: `{row, input}`. */
export function field({ label, about = "", tag = "input", attributes = {} }) {
  const id = `field-${attributes.name}`;
  const input = element(tag, { id, "aria-describedby": about ? `${id}-about` : null, ...attributes });
  const row = element("div", { class: "field" }, element("label", { for: id }, label), input);
  if (about) row.append(element("p", { id: `${id}-about`, class: "minor" }, about));
  return { row, input };
}

/** Say in the dialog why the act is not possible. */
export function tell(text) {
  setText(problem, text);
}

function busy(isBusy) {
  question.isBusy = isBusy;
  // Not `disabled`, which would take the focus away.
  setAttribute(confirm, "aria-disabled", isBusy ? "true" : null);
  setAttribute(form, "aria-busy", isBusy ? "true" : null);
}

async function submit(event) {
  event.preventDefault();
  const asked = question;
  if (asked.isBusy) return;
  tell("");
  busy(true);
  try {
    await asked.act();
    if (question === asked) dialog.close();
  } catch (error) {
    if (question !== asked) return;
    tell(sentences(error.message, error.hint));
    dialog.querySelector("[aria-invalid], input, textarea")?.focus();
  } finally {
    asked.isBusy = false;
    if (question === asked) busy(false);
  }
}

form.addEventListener("submit", submit);
cancel.addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  question = null;
  document.getElementById("dialog-body").replaceChildren();
});
