"""Files of agents in their own formats: Codex, opencode, Crush, Continue, Goose, LibreChat; YAML and its traps."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.client_files import SECRET, ClientFile, check, ids

URL = "https://example.com/mcp"
A = {"a": {"command": "run"}}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = [
    ClientFile(
        "Codex: times in seconds, tools, credentials from variables",
        ".codex/config.toml",
        """
model = "x"

[mcp_servers.a]
command = "run"
args = ["y"]
env_vars = ["TOKEN", { name = "OTHER", source = "local" }]
startup_timeout_sec = 20.5
tool_timeout_sec = 300
enabled_tools = ["read"]
disabled_tools = ["write"]
enabled = true

[mcp_servers.a.env]
K = "v"

[mcp_servers.a.tools.read]
approval_mode = "approve"

[mcp_servers.b]
url = "https://example.com/mcp"
bearer_token_env_var = "TOKEN"
http_headers = { X-A = "b" }
env_http_headers = { X-B = "PORT" }
required = true

[mcp_servers.c]
url = "https://example.com/mcp"
scopes = ["s"]
oauth = { client_id = "c" }

[mcp_servers.d]
command = "run"
enabled = false
startup_timeout_ms = 5
""",
        {
            "a": {
                "command": "run",
                "args": ["y"],
                "env": {"K": "v"},
                "inherit_env": ["TOKEN", "OTHER"],
                "start_timeout_s": 20.5,
                "request_timeout_s": 300.0,
                "tools": {"allow": ("read",), "deny": ("write",)},
            },
            "b": {
                "url": URL,
                "auth": {"type": "bearer", "token": SECRET},
                "headers": {"X-A": "b", "X-B": "8080"},
            },
            "c": {"url": URL, "auth": {"type": "oauth", "scopes": ("s",), "client_id": "c"}},
        },
        off=["d"],
    ),
    ClientFile(
        "Codex: a variable that is not set, at its place in TOML",
        ".codex/config.toml",
        '[mcp_servers."a.b"]\nurl = "https://example.com/mcp"\nbearer_token_env_var = "NOPE"\n',
        problems=[
            "3:1: mcp_servers['a.b'].bearer_token_env_var: the environment variable NOPE is not set (set it, or write "
            "${NOPE:-default})"
        ],
    ),
    ClientFile(
        "Codex: malformed TOML",
        ".codex/config.toml",
        "[mcp_servers.a]\ncommand = run\n",
        problems=["2:11: malformed TOML: Invalid value"],
    ),
    ClientFile(
        "opencode: local, remote, environment, a list as command, milliseconds, its placeholders",
        "opencode.jsonc",
        """{
  "$schema": "https://opencode.ai/config.json",
  "mcp": {
    "a": {"type": "local", "command": ["run", "x"], "environment": {"K": "{env:TOKEN}"}, "timeout": 8000},
    "b": {"type": "remote", "url": "https://example.com/mcp", "headers": {"X-K": "{file:./key}"}, "oauth": false},
    "c": {"type": "remote", "url": "https://example.com/mcp", "oauth": {"clientId": "c", "scope": "a b"}},
    "d": {"type": "local", "command": ["run"], "enabled": false}, // off
  },
}
""",
        {
            "a": {"command": "run", "args": ["x"], "env": {"K": SECRET}, "start_timeout_s": 8.0},
            "b": {"url": URL, "headers": {"X-K": SECRET}},
            "c": {"url": URL, "auth": {"type": "oauth", "client_id": "c", "scopes": ("a", "b")}},
        },
        off=["d"],
        beside={"key": f"{SECRET}\n"},
    ),
    ClientFile(
        "opencode: a table in the table, and two times",
        "opencode.json",
        {
            "mcp": {
                "servers": {
                    "a": {"type": "local", "command": ["run"], "timeout": {"startup": 9000, "request": 2500}},
                    "b": {"type": "local", "command": ["run"], "disabled": True},
                }
            }
        },
        {"a": {"command": "run", "start_timeout_s": 9.0, "request_timeout_s": 2.5}},
        off=["b"],
    ),
    ClientFile(
        "opencode: an entry that only turns a server off",
        "opencode.json",
        {"mcp": {"a": {"enabled": False}}, "tools": {}},
        off=["a"],
    ),
    ClientFile(
        "the Messages API: a list with tokens",
        "request.json",
        {"mcp_servers": [{"type": "url", "url": URL, "name": "a", "authorization_token": "${TOKEN}"}]},
        {"a": {"url": URL, "auth": {"type": "bearer", "token": SECRET}}},
    ),
    ClientFile(
        "opencode: an empty command",
        "opencode.json",
        {"mcp": {"a": {"type": "local", "command": []}}},
        problems=["5:4: mcp.a.command: the list is empty (give the program and its arguments)"],
    ),
    ClientFile(
        "Crush: seconds, tools, $VAR",
        "crush.json",
        {
            "mcp": {
                "a": {
                    "type": "stdio",
                    "command": "run",
                    "timeout": 120,
                    "disabled_tools": ["x"],
                    "enabled_tools": [],
                    "env": {"K": "$TOKEN"},
                },
                "b": {"type": "http", "url": URL, "headers": {"X": "${PORT}"}, "disabled": True},
            }
        },
        {"a": {"command": "run", "start_timeout_s": 120.0, "env": {"K": SECRET}, "tools": {"deny": ("x",)}}},
        off=["b"],
    ),
    ClientFile(
        "Crush: a command in a value is not run",
        "crush.json",
        {"mcp": {"a": {"type": "http", "url": URL, "headers": {"X-A": "$(cat secret)"}}}},
        problems=["7:5: mcp.a.headers.X-A: contains a shell command, which is not run (use an environment variable)"],
    ),
    ClientFile(
        "Continue: a list with names, its secrets, options of requests",
        ".continue/config.yaml",
        """
name: mine
version: 0.0.1
models: []
mcpServers:
  - name: a
    type: stdio
    command: run
    args: [x]
    env:
      K: ${{ secrets.TOKEN }}
    connectionTimeout: 9000
  - name: b
    type: streamable-http
    url: https://example.com/mcp
    apiKey: ${{ secrets.TOKEN }}
    requestOptions:
      timeout: 30
      verifySsl: false
      headers: {X-A: b}
      noProxy: [x]
""",
        {
            "a": {"command": "run", "args": ["x"], "env": {"K": SECRET}, "start_timeout_s": 9.0},
            "b": {
                "url": URL,
                "auth": {"type": "bearer", "token": SECRET},
                "headers": {"X-A": "b"},
                "request_timeout_s": 30.0,
                "tls": {"verify": False},
            },
        },
        ["mcpServers[1]: ignored: requestOptions.noProxy"],
    ),
    ClientFile(
        "Continue: the older JSON, with the transport as an object",
        ".continue/config.json",
        {
            "experimental": {
                "modelContextProtocolServers": [
                    {"transport": {"type": "stdio", "command": "run", "args": ["x"]}, "timeout": 9000}
                ]
            }
        },
        {"server-1": {"command": "run", "args": ["x"], "start_timeout_s": 9.0}},
    ),
    ClientFile(
        "Continue: names that are given twice",
        "config.json",
        {"mcpServers": [{"name": "a", "command": each} for each in ("run", "walk", "run", "fly")]},
        {"a": {"command": "run"}, "a-2": {"command": "walk"}, "a-3": {"command": "fly"}},
    ),
    ClientFile(
        "Continue: an entry that is no object",
        "config.json",
        {"mcpServers": [{"name": "a", "command": "run"}, "b"]},
        problems=["7:3: mcpServers[1]: expected an object, got a string"],
    ),
    ClientFile(
        "Goose: seconds, variables by name, built-in extensions, tools",
        ".config/goose/config.yaml",
        """
GOOSE_MODEL: x
extensions:
  developer: {type: builtin, name: developer, enabled: true, bundled: true, timeout: 300}
  a:
    type: stdio
    name: A server
    cmd: run
    args: [x]
    envs: {K: $TOKEN, N: 1}
    env_keys: [TOKEN]
    timeout: 300
    enabled: true
    available_tools: []
  b:
    type: streamable_http
    uri: https://example.com/mcp
    headers: {X-A: "${PORT}"}
    available_tools: [read]
    enabled: true
  c: {type: stdio, cmd: run, enabled: false}
  d: {type: platform, name: todo, enabled: true}
""",
        {
            "a": {
                "command": "run",
                "args": ["x"],
                "env": {"K": SECRET, "N": "1"},
                "inherit_env": ["TOKEN"],
                "request_timeout_s": 300.0,
            },
            "b": {"url": URL, "headers": {"X-A": "8080"}, "tools": {"allow": ("read",)}},
        },
        [
            "extensions.developer: is part of Goose (builtin), and no server of its own; it is left out",
            "extensions.d: is part of Goose (platform), and no server of its own; it is left out",
        ],
        off=["c"],
    ),
    ClientFile(
        "LibreChat: both times in milliseconds, keys, OAuth, an anchor",
        "librechat.yaml",
        """
version: 1.2.8
x-base: &base
  timeout: 61000
  initTimeout: 15000
mcpServers:
  a:
    <<: *base
    command: run
    args: []
    chatMenu: false
    serverInstructions: true
  b:
    type: streamable-http
    url: https://example.com/mcp
    apiKey: {source: admin, authorization_type: custom, custom_header: X-Key, key: "${TOKEN}"}
    proxy: http://127.0.0.1:3128
  c:
    type: sse
    url: https://example.com/sse
    oauth: {client_id: c, client_secret: "${TOKEN}", scope: a b, redirect_uri: "https://x/y"}
    requiresOAuth: true
  d:
    url: https://example.com/mcp
    apiKey: {source: user, authorization_type: bearer}
""",
        {
            "a": {"command": "run", "request_timeout_s": 61.0, "start_timeout_s": 15.0},
            "b": {
                "url": URL,
                "auth": {"type": "api_key", "header": "X-Key", "key": SECRET},
                "proxy": "http://127.0.0.1:3128",
            },
            "c": {
                "url": "https://example.com/sse",
                "transport": "sse",
                "auth": {
                    "type": "oauth",
                    "client_id": "c",
                    "client_secret": SECRET,
                    "scopes": ("a", "b"),
                    "redirect_uri": "https://x/y",
                },
            },
            "d": {"url": URL},
        },
        ["mcpServers.d: apiKey is ignored: each user has an own key"],
    ),
    ClientFile(
        "LibreChat: a value that differs between users, at its place in YAML",
        "librechat.yaml",
        "mcpServers:\n  a:\n    url: https://example.com/mcp\n    headers:\n      X-User: '{{LIBRECHAT_USER_ID}}'\n",
        problems=[
            "5:7: mcpServers.a.headers.X-User: needs {{LIBRECHAT_USER_ID}}, which differs between the users of LibreChat"
        ],
    ),
    ClientFile(
        "YAML: words and times that older YAML takes for something else",
        "servers.yaml",
        "mcpServers:\n  a:\n    command: run\n    args: [no, 22:22, 2024-01-02, 0x10, 1_000]\n    env: {A: off, B: 007, C: ~}\n",
        {
            "a": {
                "command": "run",
                "args": ["no", "22:22", "2024-01-02", "16", "1_000"],
                "env": {"A": "off", "B": "007"},
            }
        },
    ),
    ClientFile(
        "YAML: an alias that contains itself",
        "servers.yaml",
        "mcpServers: &a\n  a: *a\n",
        problems=["1:1: malformed YAML: an alias contains itself"],
    ),
    ClientFile(
        "YAML: aliases that stand for a billion values",
        "servers.yaml",
        BOMB + "mcpServers: *i\n",
        problems=["None:None: has more than 200,000 values, counting what aliases repeat"],
    ),
    ClientFile(
        "YAML: a tag that makes an object",
        "servers.yaml",
        "mcpServers: !!python/object/apply:os.system [ls]\n",
        problems=["1:1: malformed YAML: the tag is not supported"],
    ),
    ClientFile(
        "YAML: a key that is given twice",
        "servers.yaml",
        "mcpServers:\n  a: {command: run}\n  a: {command: walk}\n",
        problems=["3:1: malformed YAML: the key is given twice in one object"],
    ),
    ClientFile(
        "YAML: a secret that looks like an alias",
        "servers.yaml",
        f"mcpServers:\n  a:\n    env: {{K: *{SECRET}}}\n",
        problems=["3:14: malformed YAML: found undefined alias"],
    ),
    ClientFile(
        "YAML: punctuation between apostrophes is shown",
        "servers.yaml",
        "mcpServers:\n  a: {command: run\n",
        problems=["3:1: malformed YAML: did not find expected ',' or '}'"],
    ),
    ClientFile(
        "YAML: a tab",
        "servers.yaml",
        "mcpServers:\n\ta: 1\n",
        problems=["2:1: malformed YAML: found character that cannot start any token"],
    ),
    ClientFile(
        "the registry: a package of npm with arguments and variables",
        "server.json",
        {
            "name": "io.github.x/files",
            "version": "1.2.3",
            "packages": [
                {
                    "registryType": "npm",
                    "identifier": "@x/files",
                    "version": "1.2.3",
                    "transport": {"type": "stdio"},
                    "packageArguments": [
                        {"type": "positional", "value": "serve"},
                        {"type": "named", "name": "--port", "default": "99"},
                        {"type": "named", "name": "--quiet"},
                    ],
                    "environmentVariables": [
                        {"name": "TOKEN", "isRequired": True, "isSecret": True},
                        {"name": "LEVEL", "default": "info"},
                        {"name": "OPTIONAL"},
                    ],
                }
            ],
        },
        {
            "files": {
                "command": "npx",
                "args": ["-y", "@x/files@1.2.3", "serve", "--port", "99", "--quiet"],
                "env": {"TOKEN": SECRET, "LEVEL": "info"},
                "inherit_env": ["OPTIONAL"],
            }
        },
    ),
    ClientFile(
        "the registry: a package of PyPI, one of a container, and a reply of its API",
        "server.json",
        {
            "server": {
                "name": "io.github.x/time",
                "packages": [
                    {
                        "registryType": "oci",
                        "identifier": "ghcr.io/x/time",
                        "version": "2.0",
                        "transport": {"type": "stdio"},
                        "environmentVariables": [{"name": "TOKEN", "isRequired": True}],
                    }
                ],
            }
        },
        {
            "time": {
                "command": "docker",
                "args": ["run", "-i", "--rm", "-e", "TOKEN", "ghcr.io/x/time:2.0"],
                "env": {"TOKEN": SECRET},
            }
        },
    ),
    ClientFile(
        "the registry: a remote with a header and a variable in its URL",
        "server.json",
        {
            "name": "io.github.x/web",
            "remotes": [
                {
                    "type": "streamable-http",
                    "url": "https://{host}/mcp",
                    "variables": {"host": {"default": "example.com"}},
                    "headers": [
                        {"name": "X-Api-Key", "value": "key {key}", "variables": {"key": {"isRequired": True}}},
                        {"name": "X-Optional"},
                    ],
                }
            ],
        },
        problems=[
            "None:None: headers.X-Api-Key: the environment variable key is not set (set it, or write ${key:-default})"
        ],
    ),
    ClientFile(
        "the registry: nothing that can be run",
        "server.json",
        {"name": "x/y", "packages": [{"registryType": "mcpb", "identifier": "https://x/y.mcpb"}]},
        problems=["None:None: has no remote, and no package that can be run ('mcpb') (give a command)"],
    ),
]


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_a_file_means_what_its_client_means(file: ClientFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(file, tmp_path, caplog)
