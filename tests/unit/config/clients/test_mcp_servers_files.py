"""Files with ``mcpServers``: what each client's fields mean, and what a file means that does not tell its client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.client_files import SECRET, ClientFile, check, ids

URL = "https://example.com/mcp"
PROGRAM = {"command": "run"}


def servers(**settings: Any) -> dict[str, Any]:
    return {"mcpServers": settings}


FILES = [
    ClientFile(
        "Claude Desktop: the plain format beside other settings",
        "claude_desktop_config.json",
        {"globalShortcut": "", "mcpServers": {"a": {"command": "npx", "args": ["-y", "x"], "env": {"K": "v"}}}},
        {"a": {"command": "npx", "args": ["-y", "x"], "env": {"K": "v"}}},
    ),
    ClientFile(
        "Claude Code: time in milliseconds, a helper for headers, OAuth with a port",
        ".mcp.json",
        servers(
            a={"type": "http", "url": URL, "timeout": 90000, "headersHelper": "./h.sh --for 'a b'"},
            b={"type": "sse", "url": URL, "oauth": {"clientId": "c", "callbackPort": 8080, "scopes": "read write"}},
        ),
        {
            "a": {"url": URL, "request_timeout_s": 90.0, "headers_command": ["./h.sh", "--for", "a b"]},
            "b": {
                "url": URL,
                "transport": "sse",
                "auth": {
                    "type": "oauth",
                    "client_id": "c",
                    "scopes": ("read", "write"),
                    "redirect_uri": "http://localhost:8080/callback",
                },
            },
        },
    ),
    ClientFile(
        "Claude Code: times below a second, which it ignores itself",
        ".mcp.json",
        servers(a={"url": URL, "timeout": 60}, b={"url": URL, "timeout": 1000}, c={"url": URL, "timeout": 0}),
        {"a": {"url": URL}, "b": {"url": URL, "request_timeout_s": 1.0}, "c": {"url": URL}},
        [
            f"mcpServers.{each}: timeout is ignored, as Claude Code ignores less than 1000 milliseconds; "
            "give request_timeout_s"
            for each in "ac"
        ],
    ),
    ClientFile(
        "Claude Code: a helper that needs a shell is not run",
        ".mcp.json",
        servers(a={"type": "http", "url": URL, "headersHelper": "cat token | jq ."}),
        {"a": {"url": URL}},
        ["mcpServers.a: headersHelper is ignored, because it needs a shell; give headers_command as a list"],
    ),
    ClientFile(
        "Claude Code: what the metadata override says cannot be honoured",
        ".mcp.json",
        servers(a={"url": URL, "oauth": {"clientId": "c", "authServerMetadataUrl": "https://x/y"}}),
        {"a": {"url": URL, "auth": {"type": "oauth", "client_id": "c"}}},
        ["mcpServers.a: ignored: oauth.authServerMetadataUrl"],
    ),
    ClientFile(
        "Claude Code: a plugin's file without a wrapper, and its folder",
        "plugin/.mcp.json",
        {"a": {"command": "${CLAUDE_PLUGIN_ROOT}/bin/a", "args": ["${CLAUDE_PROJECT_DIR}", "${PORT:-1}", "${NOT:-2}"]}},
        {"a": {"command": "{project}/plugin/bin/a", "args": ["{project}/plugin", "8080", "2"]}},
    ),
    ClientFile(
        "Claude Code: ~/.claude.json with projects, an id used twice, and one turned off in its project",
        ".claude.json",
        {
            "numStartups": 4,
            "mcpServers": {"a": PROGRAM},
            "projects": {
                "/w/one": {"mcpServers": {"a": {"command": "other"}, "b": PROGRAM}, "history": []},
                "/w/two": {"mcpServers": {"b": PROGRAM, "c": PROGRAM}, "disabledMcpServers": ["c"]},
                "/w/three": {},
                "/w/four": {"mcpServers": {"b": {"command": "x"}}},
            },
        },
        {"a": {"command": "run"}, "a@one": {"command": "other"}, "b": {"command": "run"}, "b@four": {"command": "x"}},
        off=["c"],
    ),
    ClientFile(
        "Gemini CLI: httpUrl, times, tools, $VAR, OAuth, approval",
        ".gemini/settings.json",
        servers(
            a={"httpUrl": URL, "timeout": 5000, "trust": True, "headers": {"X-A": "$TOKEN", "Accept": "x/y"}},
            b={
                "command": "run",
                "cwd": "./sub",
                "env": {"K": "${TOKEN}", "L": "a$PORT"},
                "includeTools": ["read"],
                "excludeTools": ["delete", "read_all"],
            },
            c={
                "url": URL,
                "oauth": {
                    "enabled": True,
                    "clientId": "c",
                    "clientSecret": "$TOKEN",
                    "authorizationUrl": "https://x/a",
                    "tokenUrl": "https://x/t",
                    "scopes": ["s"],
                    "audiences": ["z"],
                },
            },
        ),
        {
            "a": {"url": URL, "request_timeout_s": 5.0, "headers": {"X-A": SECRET}},
            "b": {
                "command": "run",
                "cwd": "{project}/sub",
                "env": {"K": SECRET, "L": "a8080"},
                "tools": {"allow": ("read",), "deny": ("delete", "read_all")},
            },
            "c": {
                "url": URL,
                "auth": {
                    "type": "oauth",
                    "client_id": "c",
                    "client_secret": SECRET,
                    "authorization_endpoint": "https://x/a",
                    "token_endpoint": "https://x/t",
                    "scopes": ("s",),
                },
            },
        },
        [
            "mcpServers.a: Accept in headers is ignored, because the manager sets it",
            "mcpServers.c: ignored: oauth.audiences",
        ],
    ),
    ClientFile(
        "Gemini CLI: servers that its lists leave out",
        ".gemini/settings.json",
        {"mcp": {"excluded": ["b"], "allowed": ["a", "b"]}, **servers(a=PROGRAM, b=PROGRAM, c=PROGRAM)},
        {"a": {"command": "run"}},
        off=["b", "c"],
    ),
    ClientFile(
        "Gemini CLI: a variable that is not set, at its place",
        ".gemini/settings.json",
        '{\n  "mcpServers": {\n    "a": {"command": "x",\n      "env": {"K": "$NOPE"}}}}',
        problems=[
            "4:15: mcpServers.a.env.K: the environment variable NOPE is not set (set it, or write ${NOPE:-default})"
        ],
    ),
    ClientFile(
        "Windsurf: serverUrl, a file as a secret",
        ".codeium/windsurf/mcp_config.json",
        servers(
            a={"serverUrl": URL, "headers": {"Authorization": "Bearer ${file:token.txt}"}},
            b={"serverUrl": URL, "disabledTools": ["x"], "disabled": False},
        ),
        {
            "a": {"url": URL, "headers": {"Authorization": f"Bearer {SECRET}"}},
            "b": {"url": URL, "tools": {"deny": ("x",)}},
        },
        beside={".codeium/windsurf/token.txt": f"{SECRET}\n"},
    ),
    ClientFile(
        "Windsurf: a file that is missing",
        ".codeium/windsurf/mcp_config.json",
        servers(a={"serverUrl": URL, "headers": {"Authorization": "Bearer ${file:gone.txt}"}}),
        problems=[
            "6:5: mcpServers.a.headers.Authorization: the file that it names cannot be read: No such file or directory"
        ],
    ),
    ClientFile(
        "Cline: time in seconds, off, approval",
        "cline_mcp_settings.json",
        servers(
            a={"command": "run", "timeout": 30, "autoApprove": ["x"], "disabled": False, "type": "stdio"},
            b={"url": URL, "type": "streamableHttp", "disabled": True},
        ),
        {"a": {"command": "run", "request_timeout_s": 30.0}},
        off=["b"],
    ),
    ClientFile(
        "Roo Code: disabled tools, seconds, a variable of the editor",
        ".roo/mcp.json",
        servers(
            a={
                "command": "run",
                "args": ["${workspaceFolder}/x", "${userHome}", "${env:PORT}", "${workspaceFolderBasename}"],
                "timeout": 3600,
                "disabledTools": ["rm"],
                "alwaysAllow": ["ls"],
                "watchPaths": ["/x"],
            }
        ),
        {
            "a": {
                "command": "run",
                "args": ["{project}/x", "/home/u", "8080", "project"],
                "request_timeout_s": 3600.0,
                "tools": {"deny": ("rm",)},
            }
        },
    ),
    ClientFile(
        "Kiro: milliseconds, scopes beside the server, a redirect without a scheme",
        ".kiro/settings/mcp.json",
        servers(
            a={
                "url": URL,
                "timeout": 120000,
                "disabledTools": ["x"],
                "oauth": {"redirectUri": "127.0.0.1:8080"},
                "oauthScopes": ["a", "b"],
            }
        ),
        {
            "a": {
                "url": URL,
                "request_timeout_s": 120.0,
                "tools": {"deny": ("x",)},
                "auth": {"type": "oauth", "redirect_uri": "http://127.0.0.1:8080/callback", "scopes": ("a", "b")},
            }
        },
    ),
    ClientFile(
        "Cursor: envFile, variables of the editor, a client of its own",
        ".cursor/mcp.json",
        servers(
            a={"command": "run", "envFile": "${workspaceFolder}/.env", "env": {"B": "mine"}},
            b={"url": URL, "auth": {"CLIENT_ID": "c", "CLIENT_SECRET": "${env:TOKEN}", "scopes": ["s"]}},
        ),
        {
            "a": {"command": "run", "env": {"B": "mine", "A": SECRET, "C": "${PORT} #"}},
            "b": {
                "url": URL,
                "auth": {"type": "oauth", "client_id": "c", "client_secret": SECRET, "scopes": ("s",)},
            },
        },
        beside={".env": f"# a comment\nexport A={SECRET}\nB=theirs\nC='${{PORT}} #'\nEMPTY\n"},
    ),
    ClientFile(
        "Cursor: an envFile that is missing",
        ".cursor/mcp.json",
        servers(a={"command": "run", "envFile": ".env"}),
        problems=["5:4: mcpServers.a.envFile: the file that it names cannot be read: No such file or directory"],
    ),
    ClientFile(
        "Copilot CLI: local, tools, all tools, $VAR",
        ".copilot/mcp-config.json",
        servers(
            a={"type": "local", "command": "run", "tools": ["read"], "env": {"K": "$TOKEN"}, "timeout": 1500},
            b={"type": "http", "url": URL, "tools": ["*"]},
            c={"type": "http", "url": URL, "tools": []},
        ),
        {
            "a": {
                "command": "run",
                "env": {"K": SECRET},
                "request_timeout_s": 1.5,
                "tools": {"allow": ("read",)},
            },
            "b": {"url": URL},
            "c": {"url": URL, "tools": {"allow": ()}},
        },
    ),
    ClientFile(
        "FastMCP: milliseconds, a bearer token as auth, OAuth as a word",
        "fastmcp.json",
        servers(
            a={"url": URL, "transport": "streamable-http", "auth": "${TOKEN}", "timeout": 2500},
            b={"url": URL, "auth": "oauth"},
            c={"url": URL, "tools": {"x": {"enabled": False}, "y": {"name": "z"}}, "timeout": 0},
        ),
        {
            "a": {"url": URL, "auth": {"type": "bearer", "token": SECRET}, "request_timeout_s": 2.5},
            "b": {"url": URL, "auth": {"type": "oauth"}},
            "c": {"url": URL, "tools": {"deny": ("x",)}, "request_timeout_s": 31536000.0},
        },
        ["mcpServers.c: what tools says of single tools is ignored, except whether they are enabled"],
    ),
    ClientFile(
        "Cherry Studio: isActive, baseUrl, told by its fields alone",
        "servers.json",
        servers(
            a={"type": "streamableHttp", "baseUrl": URL, "isActive": True, "timeout": 60, "name": "Mine"},
            b={"command": "run", "isActive": False},
            c={"type": "inMemory", "isActive": True},
        ),
        {"a": {"url": URL}},
        [
            "mcpServers.a: baseUrl is read as url; timeout is read as request_timeout_s",
            "mcpServers.c: is part of Cherry Studio (inmemory), and no server of its own; it is left out",
        ],
        off=["b"],
    ),
    ClientFile(
        "Amp: a key with a dot",
        "settings.json",
        {"amp.mcpServers": {"a": {"command": "run", "includeTools": ["r*"]}}, "amp.url": "x"},
        {"a": {"command": "run", "tools": {"allow": ("r*",)}}},
    ),
    ClientFile(
        "no client told: the field of one tells it, and the warning says how it was read",
        "mcp.json",
        servers(a={"httpUrl": URL, "timeout": 7000}),
        {"a": {"url": URL, "request_timeout_s": 7.0}},
        ["mcpServers.a: httpUrl is read as url; timeout is read as request_timeout_s"],
    ),
    ClientFile(
        "no client told: a time without a unit",
        "mcp.json",
        servers(a={"command": "run", "timeout": 30000}),
        {"a": {"command": "run"}},
        ["mcpServers.a: timeout is ignored, because its unit differs between clients; give request_timeout_s"],
    ),
    ClientFile(
        "no client told: fields of several clients",
        "mcp.json",
        servers(
            a={
                "url": URL,
                "http_headers": {"X-A": 1},
                "bearer_token_env_var": "TOKEN",
                "tool_timeout_sec": 300,
                "startup_timeout_sec": 20,
                "enabled_tools": ["a"],
                "disabled_tools": ["b"],
            },
            b={"cmd": "run", "environment": {"A": "b"}, "env_vars": ["TOKEN"]},
        ),
        {
            "a": {
                "url": URL,
                "headers": {"X-A": "1"},
                "auth": {"type": "bearer", "token": SECRET},
                "request_timeout_s": 300.0,
                "start_timeout_s": 20.0,
                "tools": {"allow": ("a",), "deny": ("b",)},
            },
            "b": {"command": "run", "env": {"A": "b"}, "inherit_env": ["TOKEN"]},
        },
        [
            "mcpServers.a: http_headers is read as headers; bearer_token_env_var is read as auth; tool_timeout_sec is "
            "read as request_timeout_s; startup_timeout_sec is read as start_timeout_s; enabled_tools is read as "
            "tools.allow; disabled_tools is read as tools.deny",
            "mcpServers.b: cmd is read as command; environment is read as env; env_vars is read as inherit_env",
        ],
    ),
    ClientFile(
        "no client told: ways to be off",
        "mcp.json",
        servers(
            a={"command": "run", "disabled": True},
            b={"command": "run", "enabled": False},
            c={"command": "run", "isActive": False},
            d={"command": "run", "options": {"enabled": False}},
            e={"command": "run", "options": {"enabled": True, "color": "red"}, "enabled": True, "disabled": False},
        ),
        {"e": {"command": "run"}},
        ["mcpServers.e: ignored: options.color"],
        off=["a", "b", "c", "d"],
    ),
    ClientFile(
        "no client told: what is off may be wrong",
        "mcp.json",
        servers(a={"disabled": True}, b={"tools": 5, "disabled": True, "command": 7}, c=PROGRAM),
        {"c": {"command": "run"}},
        off=["a", "b"],
    ),
    ClientFile(
        "no client told: a switch that is no boolean",
        "mcp.json",
        servers(a={"command": "run", "enabled": "no"}),
        problems=["5:4: mcpServers.a.enabled: expected true or false, got a string"],
    ),
    ClientFile(
        "no client told: numbers, booleans and null in env and args",
        "mcp.json",
        servers(
            a={
                "command": "run",
                "args": ["-p", 8080, True, 0.5],
                "env": {"PORT": 3000, "DEBUG": True, "RATE": 0.5, "BIG": 1e3, "NONE": None},
                "cwd": None,
                "headers": None,
            }
        ),
        {
            "a": {
                "command": "run",
                "args": ["-p", "8080", "true", "0.5"],
                "env": {"PORT": "3000", "DEBUG": "true", "RATE": "0.5", "BIG": "1000"},
            }
        },
    ),
    ClientFile(
        "no client told: a list in env, an object in args",
        "mcp.json",
        servers(a={"command": "run", "env": ["A=b", "C=d=e"], "args": [{}]}),
        problems=["10:5: mcpServers.a.args[0]: expected a string, got an object"],
    ),
    ClientFile(
        "no client told: a home in the command and the folder",
        "mcp.json",
        servers(a={"command": "~/bin/a", "cwd": "~"}, b={"command": "${HOME}/b", "cwd": "sub/../other"}),
        {
            "a": {"command": "/home/u/bin/a", "cwd": "/home/u"},
            "b": {"command": "/home/u/b", "cwd": "{project}/other"},
        },
    ),
    ClientFile(
        "no client told: placeholders of other clients are told, and sent as they are",
        "mcp.json",
        servers(
            a={"command": "sh", "args": ["-c", "echo $HOME ${a[@]}"], "env": {"A": "$TOKEN", "P": "pa$$word$"}},
            b={"url": URL, "headers": {"Authorization": "Bearer {env:TOKEN}", "X-B": "${{ secrets.T }}"}},
        ),
        {
            "a": {"command": "sh", "args": ["-c", "echo $HOME ${a[@]}"], "env": {"A": "$TOKEN", "P": "pa$$word$"}},
            "b": {"url": URL, "headers": {"Authorization": "Bearer {env:TOKEN}", "X-B": "${{ secrets.T }}"}},
        },
        [
            "mcpServers.a: env.A is sent as it is; for a variable, write ${VAR}",
            "mcpServers.b: headers.Authorization is sent as it is; for a variable, write ${VAR}; headers.X-B is sent as "
            "it is; for a variable, write ${VAR}",
        ],
    ),
    ClientFile(
        "no client told: an input that the client asks for",
        "mcp.json",
        servers(a={"command": "run", "env": {"K": "${input:api-key}"}}),
        problems=[
            "6:5: mcpServers.a.env.K: needs the input 'api-key', which the client asks its user for (set the environment "
            "variable INPUT_API_KEY)"
        ],
    ),
    ClientFile(
        "no client told: headers that the manager sets, in any case",
        "mcp.json",
        servers(a={"url": URL, "headers": {"content-type": "a/b", "MCP-Protocol-Version": "x", "X-A": "1"}}),
        {"a": {"url": URL, "headers": {"X-A": "1"}}},
        ["mcpServers.a: MCP-Protocol-Version, content-type in headers is ignored, because the manager sets it"],
    ),
    ClientFile(
        "no client told: two credentials",
        "mcp.json",
        servers(
            a={"url": URL, "headers": {"authorization": "Bearer x"}, "bearerToken": "y"},
            b={"url": URL, "bearerToken": "Bearer y", "oauth": {"clientSecret": "z"}},
            c={"url": URL, "oauth": {"clientSecret": "z"}},
        ),
        {
            "a": {"url": URL, "headers": {"authorization": "Bearer x"}},
            "b": {"url": URL, "auth": {"type": "bearer", "token": "y"}},
            "c": {"url": URL, "auth": {"type": "oauth"}},
        },
        [
            "mcpServers.a: bearerToken is read as auth; auth is ignored, because Authorization is in the headers",
            "mcpServers.b: bearerToken is read as auth; oauth is read as auth; oauth is ignored, because another "
            "credential is given",
            "mcpServers.c: oauth is read as auth; the secret in oauth is ignored, because there is no client id",
        ],
    ),
    ClientFile(
        "no client told: every spelling of a transport",
        "mcp.json",
        servers(
            a={"type": "HTTP", "url": URL},
            b={"type": "STREAMABLE_HTTP", "url": URL},
            c={"type": "streamableHttp", "url": URL},
            d={"transport": "streamable-http", "url": URL},
            e={"type": "remote", "url": URL},
            f={"transportType": "sse", "url": URL},
            g={"type": "Stdio", "command": "run"},
            h={"type": "local", "command": ["run", "x"], "args": ["y"]},
        ),
        {
            **{name: {"url": URL} for name in "abcde"},
            "f": {"url": URL, "transport": "sse"},
            "g": {"command": "run"},
            "h": {"command": "run", "args": ["x", "y"]},
        },
    ),
    ClientFile(
        "no client told: transports that do not fit",
        "mcp.json",
        servers(
            a={"type": "stdio", "command": "run", "url": URL},
            b={"type": "http", "command": "run", "url": URL, "env": {"A": "b"}},
            c={"type": "ws", "url": "https://x/y"},
        ),
        problems=[
            "17:4: mcpServers.c.type: the WebSocket transport is not supported yet (use 'http', 'sse' or 'stdio')"
        ],
        warnings=[
            "mcpServers.a: ignored: url (type says stdio)",
            "mcpServers.b: ignored: command (type says http), env",
        ],
    ),
    ClientFile(
        "no client told: a program with fields of HTTP, and the other way round",
        "mcp.json",
        servers(a={"command": "run", "headers": {"A": "b"}}, b={"url": URL, "args": ["x"], "env": {"A": "b"}}),
        {"a": {"command": "run"}, "b": {"url": URL}},
        ["mcpServers.a: ignored: headers", "mcpServers.b: ignored: args, env"],
    ),
    ClientFile(
        "no client told: everything that is wrong, in the order of the file",
        "mcp.json",
        '{"mcpServers": {\n "a": {"url": "ftp://x", "priority": 999,\n  "headers": {"A b": "c"}},\n "b": {},\n "c": 5,\n'
        ' "d": {"command": "x", "env": {"K": "${NOPE}", "L": "${NOPE2}"}}}}',
        problems=[
            "2:8: mcpServers.a.url: has the unsupported scheme 'ftp' (use http or https)",
            "2:26: mcpServers.a.priority: expected an integer <= 255, got 999",
            '3:3: mcpServers.a.headers: name 1 is not a header name (RFC 9110, section 5.6.2) (write {"Name": '
            '"value"}, the name without colon and spaces)',
            "4:2: mcpServers.b.url: missing (give url for an HTTP server or command for a stdio server)",
            "5:2: mcpServers.c: expected an object, got 5",
            "6:32: mcpServers.d.env.K: the environment variable NOPE is not set (set it, or write ${NOPE:-default})",
            "6:48: mcpServers.d.env.L: the environment variable NOPE2 is not set (set it, or write ${NOPE2:-default})",
        ],
    ),
    ClientFile(
        "no client told: a problem of a value is told under the name that the file has for it",
        "mcp.json",
        servers(
            a={"serverUrl": "nonsense", "excludeTools": [1], "tool_timeout_sec": "soon", "bearer_token_env_var": "NOPE"}
        ),
        problems=[
            "4:4: mcpServers.a.serverUrl: does not begin with http:// or https:// (give an absolute URL such as "
            "http://localhost:8001/mcp)",
            "6:5: mcpServers.a.excludeTools[0]: expected a string, got a number",
            "8:4: mcpServers.a.tool_timeout_sec: expected a number, got a string",
            "9:4: mcpServers.a.bearer_token_env_var: the environment variable NOPE is not set (set it, or write "
            "${NOPE:-default})",
        ],
        warnings=["mcpServers.a: serverUrl is read as url; bearer_token_env_var is read as auth"],
    ),
    ClientFile(
        "no client told: a misspelt field, one that nobody knows, and some that mean nothing",
        "mcp.json",
        servers(a={"command": "run", "prioritty": 1, "zoom": 3, "description": "d", "icon": "i", "_note": 1}),
        {"a": {"command": "run"}},
        ["mcpServers.a: ignored: prioritty (did you mean priority?), zoom"],
    ),
    ClientFile(
        "no client told: a command line in one text, words in one text, lists of pairs",
        "mcp.json",
        servers(
            a={"command": "npx -y 'a b'", "args": "--port 1 'c d'", "env": ["A=b", {"name": "C", "value": "d=e"}]},
            b={"url": URL, "headers": ["X-A: b: c", {"key": "X-B", "value": 1}]},
            c={"command": "/opt/my app/run"},
        ),
        {
            "a": {
                "command": "npx",
                "args": ["-y", "a b", "--port", "1", "c d"],
                "env": {"A": "b", "C": "d=e"},
            },
            "b": {"url": URL, "headers": {"X-A": "b: c", "X-B": "1"}},
            "c": {"command": "/opt/my app/run"},
        },
        ["mcpServers.a: command is split into the program and its arguments; args is split into words"],
    ),
    ClientFile(
        "no client told: times with their unit, objects of tools, names with underscores",
        "mcp.json",
        servers(
            a={"command": "run", "timeout": "1500ms"},
            b={"command": "run", "tool_timeout_sec": "2m", "tools": {"include": ["a"], "exclude": ["b"]}},
            c={"server_url": URL, "exclude_tools": ["x"], "tools": {"x": "sometimes"}},
            d={"command": "run", "timeout": "soon"},
        ),
        {
            "a": {"command": "run", "request_timeout_s": 1.5},
            "b": {"command": "run", "request_timeout_s": 120.0, "tools": {"allow": ("a",), "deny": ("b",)}},
            "c": {"url": URL, "tools": {"deny": ("x",)}},
            "d": {"command": "run"},
        },
        [
            "mcpServers.b: tool_timeout_sec is read as request_timeout_s",
            "mcpServers.c: server_url is read as url; exclude_tools is read as tools.deny; what tools says of single "
            "tools is ignored, except whether they are enabled",
            "mcpServers.d: timeout is ignored, because its unit differs between clients; give request_timeout_s",
        ],
    ),
    ClientFile(
        "no client told: values that are nested too deeply, or are none of JSON",
        "mcp.json",
        '{"mcpServers": {"a": {"command": "run", "env": {"K": '
        + "[" * 400
        + "]" * 400
        + '}},\n "b": {"url": "https://h/",'
        ' "limits": ' + '{"a":' * 400 + "1" + "}" * 400 + "}}}",
        problems=[
            "1:49: mcpServers.a.env.K: expected a string, got an array",
            "2:195: mcpServers.b.limits" + ".a" * 32 + ": nested deeper than 32 levels",
        ],
    ),
    ClientFile(
        "no client told: a secret where the name of a variable should be",
        "mcp.json",
        servers(a={"url": URL, "bearer_token_env_var": SECRET}),
        problems=[
            "5:4: mcpServers.a.bearer_token_env_var: is not the name of a variable (give the name, not the value)"
        ],
    ),
    ClientFile(
        "no client told: a unix socket as VS Code writes it",
        "mcp.json",
        servers(a={"url": "unix:///run/user/x.sock#/mcp"}),
        {"a": {"url": "http://localhost/mcp", "unix_socket": "/run/user/x.sock"}},
    ),
    ClientFile(
        "Claude Code: a file without servers",
        ".claude.json",
        {"numStartups": 1, "projects": {"/w": {}}},
        warnings=[
            "{project}/.claude.json: has no servers; Claude Code has them in mcpServers or projects.*.mcpServers"
        ],
    ),
    ClientFile(
        "no client told: an empty place, an empty list of tools, a home in a helper",
        "mcp.json",
        servers(
            a={"command": "", "url": URL, "disabledTools": [], "tools": ["*"]},
            b={"command": "run", "url": ""},
            c={"url": URL, "headersHelper": "~/bin/h"},
        ),
        {"a": {"url": URL}, "b": {"command": "run"}, "c": {"url": URL, "headers_command": ["/home/u/bin/h"]}},
        ["mcpServers.c: headersHelper is read as headers_command"],
    ),
    ClientFile(
        "no client told: servers as VS Code has them in a file of another name, told by a field of clients",
        "team.json",
        {"servers": {"a": {"command": "run", "alwaysAllow": ["x"], "timeout": 5}}},
        {"a": {"command": "run"}},
        ["servers.a: timeout is ignored, because its unit differs between clients; give request_timeout_s"],
    ),
    ClientFile("no client told: no server", "mcp.json", servers(), {}),
    ClientFile(
        "one server alone", "x.json", {"command": "run", "args": ["y"]}, {"server": {"command": "run", "args": ["y"]}}
    ),
    ClientFile(
        "a map of servers alone",
        "x.json",
        {"$schema": "x", "a": PROGRAM, "b": {"serverUrl": URL}},
        {"a": {"command": "run"}, "b": {"url": URL}},
        ["b: serverUrl is read as url"],
    ),
    ClientFile(
        "a wrapper that is misspelt",
        "x.json",
        {"mcpservers": {"a": PROGRAM}},
        problems=["2:2: unknown table 'mcpservers' (did you mean 'mcpServers'?)"],
    ),
]


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_a_file_means_what_its_client_means(file: ClientFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(file, tmp_path, caplog)
