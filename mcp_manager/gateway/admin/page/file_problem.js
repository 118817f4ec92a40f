// The configuration file of the gateway, if it could not be applied: why, and what to do.

import { setText, show } from "./dom.js";
import { cut } from "./formats.js";

const LONGEST = 2_000;

/** Shows why the configuration file was not applied. */
export class FileProblem {
  constructor(fleet, acts) {
    this.node = document.getElementById("file-problem");
    this.text = document.getElementById("file-problem-text");
    this.hint = document.getElementById("file-problem-hint");
    document.getElementById("reload").addEventListener("click", () => acts.reload());
    fleet.onChange(() => this.render(fleet));
  }

  render({ gateway }) {
    const problem = gateway?.config_problem ?? "";
    const hadFocus = problem === "" && this.node.contains(document.activeElement);
    setText(this.text, cut(problem, LONGEST));
    const file = gateway?.config_path ? `Correct ${gateway.config_path}` : "Correct the file";
    setText(this.hint, problem === "" ? "" : `The gateway goes on with the configuration that it has. ${file}, then read it again.`);
    show(this.node, problem !== "");
    if (hadFocus) document.getElementById("content").focus();
  }
}
