// What the page says about its connection to the gateway: a word in the head, and a banner when it is lost.

import { setAttribute, setText, show } from "./dom.js";
import { sentences } from "./formats.js";

const WORDS = {
  connecting: "Connecting…",
  live: "Live",
  polling: "Without live events",
  lost: "Not connected",
};

// The first failure is most often a restart, which is over before anybody could read a banner.
const FAILURES_BEFORE_BANNER = 2;

/** Shows the state of the connection. */
export class ConnectionState {
  constructor(connection) {
    this.connection = connection;
    this.timer = null;
    this.node = document.getElementById("connection");
    this.text = document.getElementById("connection-text");
    this.banner = document.getElementById("banner");
    this.bannerText = document.getElementById("banner-text");
    document.getElementById("retry").addEventListener("click", () => connection.retryNow());
  }

  /** Show a state; see `Connection`. */
  update(state, { problem, retryAt }) {
    clearInterval(this.timer);
    show(this.node, state in WORDS);
    setAttribute(this.node, "data-state", state);
    setText(this.text, WORDS[state] ?? "");
    const isBad = state === "lost" && this.connection.failed >= FAILURES_BEFORE_BANNER;
    if (!isBad && state !== "connecting") this.hideBanner();
    if (!isBad) return;
    show(this.banner, true);
    this.count(problem, retryAt);
    this.timer = setInterval(() => this.count(problem, retryAt), 1_000);
  }

  count(problem, retryAt) {
    const seconds = Math.ceil((retryAt - Date.now()) / 1_000);
    const next = seconds > 0 ? `The next attempt is in ${seconds} s.` : "Trying…";
    setText(this.bannerText, sentences(problem.message, problem.hint, "The figures may be out of date", next));
  }

  hideBanner() {
    const hadFocus = this.banner.contains(document.activeElement);
    show(this.banner, false);
    if (hadFocus) document.getElementById("content").focus();
  }
}
