// Sessions of the official SDK for TypeScript: "node typescript_client.mjs MODULES SDK (URL PREFIX)..." prints what each saw.
// SDK is "1", "2" (the handshake) or "2-stateless".
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, sdk, ...places] = process.argv.slice(2);
const packaged = createRequire(`${modules}/`);
const load = (name) => import(pathToFileURL(packaged.resolve(name)).href);

const form = async () => ({ action: "accept", content: { name: "Ada" } });
const sample = async () => ({
  role: "assistant",
  content: { type: "text", text: "a model's words" },
  model: "model",
});
const capabilities = { elicitation: {}, sampling: {} };
const info = { name: "real-client", version: "1" };

async function seenBy(url, prefix) {
  let changed;
  const change = new Promise((resolve) => (changed = resolve));
  let client, transport;
  if (sdk === "1") {
    const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const types = await load("@modelcontextprotocol/sdk/types.js");
    client = new Client(info, { capabilities });
    client.setRequestHandler(types.ElicitRequestSchema, form);
    client.setRequestHandler(types.CreateMessageRequestSchema, sample);
    client.setNotificationHandler(types.ToolListChangedNotificationSchema, () => changed());
    transport = new StreamableHTTPClientTransport(new URL(url));
  } else {
    const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
    const mode = sdk === "2" ? "legacy" : { pin: "2026-07-28" };
    client = new Client(info, { capabilities, versionNegotiation: { mode } });
    client.setRequestHandler("elicitation/create", form);
    client.setRequestHandler("sampling/createMessage", sample);
    client.setNotificationHandler("notifications/tools/list_changed", () => changed());
    transport = new StreamableHTTPClientTransport(new URL(url));
  }
  await client.connect(transport);

  const text = (result) => result.content?.[0]?.text;
  const call = async (name, args = {}, options = undefined) => {
    const params = { name: prefix + name, arguments: args };
    return text(await (sdk === "1" ? client.callTool(params, undefined, options) : client.callTool(params, options)));
  };

  const seen = { progress: [] };
  seen.tools = (await client.listTools()).tools.map((each) => each.name);
  seen.call = await call("test_simple_text");
  await call("test_tool_with_progress", {}, { onprogress: (each) => seen.progress.push(each.progress) });
  seen.elicitation = await call("test_input_required_result_elicitation");
  seen.sampling = await call("test_sampling", { prompt: "Say it." });
  const { resources } = await client.listResources();
  const { uri } = resources.find((each) => each.uri.endsWith("static-text"));
  seen.resource = (await client.readResource({ uri })).contents[0].text;
  const { prompts } = await client.listPrompts();
  const { name } = prompts.find((each) => each.name === `${prefix}test_simple_prompt`);
  seen.prompt = (await client.getPrompt({ name })).messages[0].content.text;
  const listening = sdk === "2-stateless" ? await client.listen({ toolsListChanged: true }) : undefined;
  await call("test_trigger_tool_change");
  await change;
  seen.changed = true;
  await listening?.close();
  await client.close();
  return seen;
}

const seen = [];
for (let at = 0; at < places.length; at += 2) seen.push(await seenBy(places[at], places[at + 1]));
console.log(JSON.stringify(seen));
