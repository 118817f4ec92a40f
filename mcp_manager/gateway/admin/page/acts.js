// What an operator can do to servers.

import { act, serverPath } from "./api.js";
import { ask, field } from "./dialog.js";
import { element } from "./dom.js";
import { counted } from "./formats.js";
import { tellProblem, tellResult } from "./notices.js";

const MOST_INSTANCES = 10_000;
// How long a dialog waits for the outcome.
const WAIT_S = 20;

/** Acts on servers, and calls `onDone` after each that worked. */
export class Acts {
  constructor(onDone) {
    this.onDone = onDone;
  }

  /** Ask for a number of instances, and set it. */
  scale({ id, desired }) {
    const attributes = { name: "instances", type: "number", min: 0, max: MOST_INSTANCES, step: 1, required: true, value: desired };
    const { row, input } = field({ label: "Instances", about: "With 0, the server is stopped and takes no calls.", attributes });
    ask({
      title: `Scale ${id}`,
      body: [row],
      action: "Scale",
      act: () => {
        const instances = Number(input.value);
        return this.post(id, "scale", { instances }, `${id} is scaled to ${counted(instances, "instance")}.`);
      },
    });
    input.select();
  }

  /** Replace the instances of a server by new ones. */
  redeploy({ id }) {
    ask({
      title: `Redeploy ${id}?`,
      body: [element("p", {}, "New instances replace the old ones. The old ones finish their calls first.")],
      action: "Redeploy",
      act: () =>
        this.post(id, `redeploy?wait=ready&timeout_s=${WAIT_S}`, {}, `${id} is redeployed.`, `${id} is still being redeployed.`),
    });
  }

  /** End all instances of a server. */
  suspend({ id, inflight }) {
    const ends = `All instances stop after they have finished ${counted(inflight, "running call")}. The server takes no calls until you resume it.`;
    ask({
      title: `Suspend ${id}?`,
      body: [element("p", {}, ends)],
      action: "Suspend",
      isHarmful: true,
      act: () => this.post(id, "suspend", undefined, `${id} is suspended.`, `${id} is suspended; some calls are still running.`),
    });
  }

  /** Let calls under way finish, and give the server no further ones. */
  drain({ id, inflight }) {
    const waits = `The server finishes ${counted(inflight, "running call")} and takes no new ones until you resume it. Its instances stay.`;
    ask({
      title: `Drain ${id}?`,
      body: [element("p", {}, waits)],
      action: "Drain",
      isHarmful: true,
      act: () =>
        this.post(id, "drain", undefined, `${id} has finished its calls and takes no new ones.`, `${id} takes no new calls; some are still running.`),
    });
  }

  /** Put a server into traffic again: it harms nothing, so there is no question. */
  async resume({ id }) {
    try {
      await this.post(id, "resume", undefined, `${id} takes calls again.`);
    } catch (error) {
      tellProblem(`${id}: ${error.message}`, error.hint);
    }
  }

  /** Remove a server for good. */
  undeploy({ id }) {
    const attributes = { name: "name", autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: true };
    const { row, input } = field({ label: `To confirm, enter the name of the server: ${id}`, attributes });
    ask({
      title: `Undeploy ${id}?`,
      body: [element("p", {}, "The server finishes its calls. Then the gateway stops its programs and removes its configuration."), row],
      action: "Undeploy",
      isHarmful: true,
      act: async () => {
        if (input.value.trim() !== id.trim()) throw new Error(`This is not the name of the server, ${id}.`);
        await act("DELETE", serverPath(id));
        this.done(`${id} is removed.`);
      },
    });
  }

  /** Let the gateway read its file again, which is a problem of the file or a success. */
  async reload() {
    try {
      await act("POST", "reload");
      this.done("The configuration file is applied.");
    } catch (error) {
      tellProblem(`The configuration file was not applied: ${error.message}`, error.hint);
      this.onDone();
    }
  }

  /** Ask for a name and a configuration, and deploy a server. */
  deploy() {
    const name = field({
      label: "Name",
      attributes: { name: "id", autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: true },
    });
    const config = field({
      label: "Configuration (JSON)",
      about: 'The fields of [servers.NAME] in the configuration file, as JSON: {"url": "http://…/mcp"} or {"command": "…", "args": ["…"]}.',
      tag: "textarea",
      attributes: { name: "config", rows: 8, spellcheck: "false", required: true },
    });
    ask({
      title: "Deploy a server",
      body: [name.row, config.row],
      action: "Deploy",
      act: async () => {
        const id = name.input.value.trim();
        await act("POST", "servers", { id, config: parsedConfig(config.input.value) });
        this.done(`${id} is deployed.`);
      },
    });
  }

  async post(id, verb, body, result, unfinished = result) {
    const isOver = await act("POST", serverPath(id, `/${verb}`), body);
    this.done(isOver ? result : unfinished);
  }

  done(result) {
    tellResult(result);
    this.onDone();
  }
}

function parsedConfig(text) {
  let config;
  try {
    config = JSON.parse(text);
  } catch (error) {
    throw new Error(`The configuration is not JSON: ${error.message}`);
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new Error("The configuration must be a JSON object.");
  }
  return config;
}
