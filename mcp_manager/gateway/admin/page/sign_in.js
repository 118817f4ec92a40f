// The form that asks for a token, and why it is shown.

import { forgetToken, isToken, keepToken } from "./credentials.js";
import { setAttribute, setText, show } from "./dom.js";

/** Shows the form; `onToken` is called when there is a token to try. */
export class SignIn {
  constructor(onToken) {
    this.node = document.getElementById("sign-in");
    this.input = document.getElementById("token");
    this.problem = document.getElementById("sign-in-problem");
    document.getElementById("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = this.input.value.trim();
      if (!isToken(value)) {
        this.tell("A token has only printable ASCII characters, and no spaces.");
        return;
      }
      keepToken(value);
      this.input.value = "";
      onToken();
    });
  }

  /** Ask for a token; `problem` says why the last one does not do. */
  open(problem = "") {
    forgetToken();
    show(this.node, true);
    this.tell(problem);
    this.input.focus();
  }

  close() {
    show(this.node, false);
    this.tell("");
  }

  tell(problem) {
    setText(this.problem, problem);
    setAttribute(this.input, "aria-invalid", problem ? "true" : null);
  }
}
