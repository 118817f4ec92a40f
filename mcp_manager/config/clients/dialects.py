"""The formats of the files of MCP clients, as data: where servers stand, and what each field means.

Every row was taken from the documentation or the source of the client. To add a client, add a row to ``DIALECTS``; to
add a kind of value, add a function to ``CONVERSIONS`` in ``conversions.py`` and name it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["DIALECTS", "GENERIC", "Dialect", "Field", "Table"]


class Field(NamedTuple):
    """What a field of a client means: the field of ours, and the conversion of its value."""

    ours: str
    conversion: str = "same"


class Table(NamedTuple):
    """Where servers stand in a file. ``*`` in the path stands for any name: a project's folder.

    ``kind`` is ``map`` (servers by id), ``list`` (each with its name), ``one`` (the object is a server),
    ``children`` (a map that is recognised by what is in it) or ``registry`` (a ``server.json``).
    """

    path: tuple[str, ...]
    kind: str = "map"


class Dialect(NamedTuple):
    """The format of one client.

    Parameters
    ----------
    client
        Its name, for messages.
    tables
        Where servers stand.
    files
        The ends of the paths of its files, in lower case with slashes.
    marks
        Fields of a server, or ``field=value``, that only this client has: they tell it in a file of another name.
    fields
        What its fields mean, in addition to the common ones.
    harmless
        Fields that mean nothing for a manager, in addition to the common ones.
    placeholders
        How it writes variables, in addition to ``${VAR}`` and ``${VAR:-text}``: ``dollar`` is ``$VAR``, ``editor`` the
        variables of VS Code such as ``${workspaceFolder}``, ``single`` is ``{env:VAR}`` and ``{file:path}``, ``double``
        is ``${{ secrets.VAR }}``, ``file`` is ``${file:path}``, ``user`` is ``{{VAR}}``, which differs between users,
        ``shell`` is ``$(command)``.
    constants
        Variables that the client sets itself: ``folder`` is that of the file, ``workspace`` that of the project.
    off, only
        Lists elsewhere in the file of the servers that are off, or of the only ones that are on.
    """

    client: str
    tables: tuple[Table, ...]
    files: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    fields: Mapping[str, Field] = {}
    harmless: frozenset[str] = frozenset()
    placeholders: frozenset[str] = frozenset()
    constants: Mapping[str, str] = {}
    off: tuple[tuple[str, ...], ...] = ()
    only: tuple[tuple[str, ...], ...] = ()


_MCP_SERVERS: Final = (Table(("mcpServers",)),)
_EDITOR: Final = frozenset({"editor"})

MILLISECONDS: Final = Field("request_timeout_s", "milliseconds")
SECONDS: Final = Field("request_timeout_s", "seconds")
CLAUDE_TIME: Final = Field("request_timeout_s", "claude_timeout")
START_MILLISECONDS: Final = Field("start_timeout_s", "start_milliseconds")
START_SECONDS: Final = Field("start_timeout_s", "start_seconds")
ALLOWED: Final = Field("tools.allow", "tool_names")
ALLOWED_IF_ANY: Final = Field("tools.allow", "tool_names_if_any")
OAUTH: Final = Field("auth", "oauth")
DENIED: Final = Field("tools.deny", "tool_names")

COMMON_FIELDS: Final[Mapping[str, Field]] = {
    "command": Field("command", "command"),
    "args": Field("args", "arguments"),
    "env": Field("env", "variables"),
    "cwd": Field("cwd", "folder"),
    "url": Field("url", "url"),
    "headers": Field("headers", "headers"),
    "type": Field("transport", "transport"),
    "transport": Field("transport", "transport"),
    "transportType": Field("transport", "transport"),
    "auth": Field("auth", "auth"),
    "disabled": Field("", "off"),
    "enabled": Field("", "on"),
    "isActive": Field("", "on"),
    "options": Field("", "options"),
}
"""What all clients agree on."""

FOREIGN_FIELDS: Final[Mapping[str, Field]] = {
    "serverUrl": Field("url", "url"),
    "httpUrl": Field("url", "url"),
    "baseUrl": Field("url", "url"),
    "uri": Field("url", "url"),
    "endpoint": Field("url", "url"),
    "cmd": Field("command", "command"),
    "argv": Field("command", "command"),
    "environment": Field("env", "variables"),
    "envs": Field("env", "variables"),
    "envFile": Field("env", "env_file"),
    "env_file": Field("env", "env_file"),
    "env_vars": Field("inherit_env", "variable_names"),
    "env_keys": Field("inherit_env", "variable_names"),
    "workingDirectory": Field("cwd", "folder"),
    "working_directory": Field("cwd", "folder"),
    "http_headers": Field("headers", "headers"),
    "env_http_headers": Field("headers", "header_variables"),
    "bearer_token_env_var": Field("auth", "bearer_variable"),
    "bearerTokenEnvVar": Field("auth", "bearer_variable"),
    "bearerToken": Field("auth", "bearer"),
    "bearer_token": Field("auth", "bearer"),
    "authorization_token": Field("auth", "bearer"),
    "headersHelper": Field("headers_command", "helper"),
    "oauth": OAUTH,
    "includeTools": ALLOWED,
    "enabledTools": ALLOWED,
    "enabled_tools": ALLOWED,
    "allowedTools": ALLOWED,
    "allowed_tools": ALLOWED,
    "available_tools": ALLOWED,
    "tools": Field("tools", "tools"),
    "excludeTools": DENIED,
    "disabledTools": DENIED,
    "disabled_tools": DENIED,
    "disallowedTools": DENIED,
    "blockedTools": DENIED,
    "deniedTools": DENIED,
    "denyTools": DENIED,
    "allowTools": ALLOWED,
    "startup_timeout_sec": START_SECONDS,
    "startup_timeout_ms": START_MILLISECONDS,
    "tool_timeout_sec": SECONDS,
    "initTimeout": START_MILLISECONDS,
    "connectionTimeout": START_MILLISECONDS,
    "timeout": Field("", "ambiguous_time"),
}
"""What fields of single clients mean in a file that does not tell its client; each use is told in the warning."""

COMMON_HARMLESS: Final = frozenset(
    {
        # What is shown of a server.
        "description", "title", "displayName", "icon", "icons", "iconPath", "logoUrl", "provider", "providerUrl",
        "tags", "note", "notes", "comment", "_comment", "//", "homepage", "repository", "author", "version",
        "serverInstructions", "chatMenu", "faviconUrl", "instructions", "$schema", "id",
        # Who is asked before a tool is called: the manager asks nobody.
        "alwaysAllow", "autoApprove", "autoApproved", "trust", "alwaysLoad", "default_tools_approval_mode",
        "disabledAutoApproveTools", "isTrusted", "installSource", "requireApproval",
        # How a client installs or debugs it.
        "gallery", "dev", "fromGalleryId", "watchPaths", "autoStart", "autostart", "startup", "bundled", "required",
        "installedAt", "registryUrl", "source", "isInstalled", "keep_alive", "stderr", "deferred",
    }
)  # fmt: skip
"""Fields without a meaning for a manager."""

GENERIC: Final = Dialect("an MCP client", (*_MCP_SERVERS, Table(("mcp", "mcpServers"))), placeholders=_EDITOR)
"""``mcpServers`` in a file that does not tell its client."""

_CLAUDE_CODE: Final = Dialect(
    "Claude Code",
    (*_MCP_SERVERS, Table(("projects", "*", "mcpServers"))),
    files=("/.mcp.json", "/.claude.json", "/.claude/settings.json", "/.claude/settings.local.json"),
    marks=("headersHelper",),
    # Connect Claude Code to tools via MCP: ``timeout`` is in milliseconds and bounds a tool call; below 1000 it is ignored.
    fields={"oauth": OAUTH, "timeout": CLAUDE_TIME, "headersHelper": FOREIGN_FIELDS["headersHelper"]},
    constants={"CLAUDE_PROJECT_DIR": "workspace", "CLAUDE_PLUGIN_ROOT": "folder"},
)
_PLUGIN: Final = _CLAUDE_CODE._replace(tables=(Table((), "children"),))
_VS_CODE_FIELDS: Final[Mapping[str, Field]] = {
    "envFile": FOREIGN_FIELDS["envFile"],
    "oauth": OAUTH,
    "sandboxEnabled": Field("", "sandbox"),
}

DIALECTS: Final = (
    _CLAUDE_CODE,
    Dialect(
        "Claude Desktop",
        _MCP_SERVERS,
        files=("/claude_desktop_config.json",),
    ),
    Dialect(
        "Gemini CLI",
        _MCP_SERVERS,
        files=("/.gemini/settings.json", "/gemini-extension.json", "/.qwen/settings.json"),
        marks=("httpUrl", "includeTools", "excludeTools", "authProviderType"),
        fields={
            "httpUrl": Field("url", "url"),
            "includeTools": ALLOWED,
            "excludeTools": DENIED,
            "timeout": MILLISECONDS,
            "oauth": OAUTH,
        },
        harmless=frozenset({"extensionName"}),
        placeholders=frozenset({"dollar"}),
        constants={"extensionPath": "folder", "workspacePath": "workspace"},
        off=(("mcp", "excluded"),),
        only=(("mcp", "allowed"),),
    ),
    Dialect(
        "Windsurf",
        _MCP_SERVERS,
        files=("/windsurf/mcp_config.json", "/.codeium/mcp_config.json", "/antigravity/mcp_config.json"),
        marks=("serverUrl",),
        fields={"serverUrl": Field("url", "url"), "disabledTools": DENIED},
        placeholders=frozenset({"file"}),
    ),
    Dialect(
        "Cline",
        _MCP_SERVERS,
        files=("/cline_mcp_settings.json",),
        # cline/cline, src/services/mcp/schemas.ts: DEFAULT_MCP_TIMEOUT_SECONDS.
        fields={"timeout": SECONDS},
    ),
    Dialect(
        "Roo Code",
        _MCP_SERVERS,
        files=(
            "/.roo/mcp.json",
            "/.kilocode/mcp.json",
            "/rooveterinaryinc.roo-cline/settings/mcp_settings.json",
            "/kilocode.kilo-code/settings/mcp_settings.json",
        ),
        # RooCodeInc/Roo-Code, src/services/mcp/McpHub.ts (BaseConfigSchema): 1 to 3600 seconds.
        fields={"timeout": SECONDS, "disabledTools": DENIED},
        placeholders=_EDITOR,
    ),
    Dialect(
        "Kiro",
        _MCP_SERVERS,
        files=("/.kiro/settings/mcp.json", "/.aws/amazonq/mcp.json", "/.amazonq/mcp.json"),
        # aws/amazon-q-developer-cli, which became Kiro CLI, docs/agent-format.md: of each request, in milliseconds.
        fields={
            "timeout": MILLISECONDS,
            "disabledTools": DENIED,
            "oauth": OAUTH,
            "oauthScopes": Field("auth", "oauth_scopes"),
        },
    ),
    Dialect(
        "Cursor",
        _MCP_SERVERS,
        files=("/.cursor/mcp.json",),
        fields={"envFile": FOREIGN_FIELDS["envFile"]},
        placeholders=_EDITOR,
    ),
    Dialect(
        "Copilot CLI",
        _MCP_SERVERS,
        files=("/.copilot/mcp-config.json", "/.github/mcp.json"),
        # github/copilot-sdk, McpServerConfig: of tool calls, in milliseconds.
        fields={"tools": Field("tools", "tools"), "timeout": MILLISECONDS},
        placeholders=frozenset({"dollar"}),
    ),
    Dialect(
        "Cherry Studio",
        _MCP_SERVERS,
        marks=("isActive", "longRunning"),
        # CherryHQ/cherry-studio, the type MCPServer: of requests, in seconds.
        fields={
            "baseUrl": Field("url", "url"),
            "timeout": SECONDS,
            "disabledTools": DENIED,
            "longRunning": Field("", "harmless"),
        },
    ),
    Dialect(
        "Amp",
        (Table(("amp.mcpServers",)),),
        fields={"includeTools": ALLOWED},
        placeholders=_EDITOR,
    ),
    Dialect(
        "LibreChat",
        _MCP_SERVERS,
        files=("/librechat.yaml", "/librechat.yml"),
        marks=("initTimeout", "customUserVars", "chatMenu", "serverInstructions", "requiresOAuth"),
        fields={
            "initTimeout": START_MILLISECONDS,
            "timeout": MILLISECONDS,
            "oauth": OAUTH,
            "requiresOAuth": Field("auth", "oauth"),
            "apiKey": Field("auth", "api_key"),
            "proxy": Field("proxy"),
        },
        harmless=frozenset({"customUserVars"}),
        placeholders=frozenset({"user"}),
    ),
    Dialect(
        "FastMCP",
        _MCP_SERVERS,
        files=("/fastmcp.json",),
        marks=("include_tags", "exclude_tags", "sse_read_timeout", "keep_alive"),
        fields={"timeout": MILLISECONDS, "tools": Field("tools", "tools")},
    ),
    Dialect(
        "Continue",
        (
            Table(("mcpServers",), "list"),
            Table(("experimental", "modelContextProtocolServers"), "list"),
        ),
        files=("/.continue/config.yaml", "/.continue/config.json"),
        # continuedev/continue, core/context/mcp/MCPConnection.ts: ``connectionTimeout``, and ``timeout`` in the older
        # JSON, bound the connection, in milliseconds; ``requestOptions.timeout`` is in seconds.
        fields={
            "apiKey": Field("auth", "bearer"),
            "connectionTimeout": START_MILLISECONDS,
            "requestOptions": Field("", "request_options"),
            "timeout": START_MILLISECONDS,
        },
        harmless=frozenset({"serverName", "sourceFile"}),
        placeholders=frozenset({"double"}),
    ),
    Dialect(
        "VS Code",
        (Table(("servers",)),),
        files=("/.vscode/mcp.json", "/code/user/mcp.json", "/mcp.json"),
        marks=("envFile", "sandboxEnabled", "sandbox", "gallery", "dev"),
        fields=_VS_CODE_FIELDS,
        harmless=frozenset({"sandbox"}),
        placeholders=_EDITOR,
    ),
    Dialect(
        "opencode",
        (Table(("mcp", "servers")), Table(("mcp",))),
        files=("/opencode.json", "/opencode.jsonc", "/kilo.json", "/kilo.jsonc"),
        marks=("type=local", "type=remote", "environment"),
        fields={
            "environment": Field("env", "variables"),
            "oauth": OAUTH,
            "timeout": Field("start_timeout_s", "opencode_timeout"),
        },
        placeholders=frozenset({"single"}),
    ),
    Dialect(
        "VS Code",
        (
            Table(("mcp", "servers")),
            Table(("mcp.servers",)),
            Table(("customizations", "vscode", "mcp", "servers")),
            Table(("customizations", "vscode", "settings", "mcp", "servers")),
            Table(("settings", "mcp", "servers")),
        ),
        files=("/settings.json", "/devcontainer.json", "/.devcontainer.json"),
        fields=_VS_CODE_FIELDS,
        harmless=frozenset({"sandbox"}),
        placeholders=_EDITOR,
    ),
    Dialect(
        "Crush",
        (Table(("mcp",)),),
        files=("/crush.json", "/.crush.json"),
        # charmbracelet/crush, schema.json: of connections, in seconds.
        fields={
            "timeout": START_SECONDS,
            "disabled_tools": DENIED,
            "enabled_tools": ALLOWED_IF_ANY,
        },
        placeholders=frozenset({"dollar", "shell"}),
    ),
    Dialect(
        "Codex",
        (Table(("mcp_servers",)), Table(("mcp_servers",), "list")),
        files=("/.codex/config.toml",),
        fields={
            **{
                name: FOREIGN_FIELDS[name]
                for name in (
                    "startup_timeout_sec",
                    "startup_timeout_ms",
                    "tool_timeout_sec",
                    "bearer_token_env_var",
                    "http_headers",
                    "env_http_headers",
                    "env_vars",
                    "enabled_tools",
                    "disabled_tools",
                    "oauth",
                )
            },
            "scopes": Field("auth", "oauth_scopes"),
            "oauth_client_id": Field("auth", "oauth_client"),
            "authorization_token": FOREIGN_FIELDS["authorization_token"],
        },
        # ``tools`` says which tools need approval.
        harmless=frozenset(
            {"tools", "name", "oauth_resource", "experimental_environment", "supports_parallel_tool_calls"}
        ),
    ),
    Dialect(
        "Zed",
        (Table(("context_servers",)),),
        fields={"timeout": SECONDS, "oauth": OAUTH},
        harmless=frozenset({"remote", "settings"}),
    ),
    Dialect(
        "Goose",
        (Table(("extensions",)),),
        files=("/goose/config.yaml", "/.goose/config.yaml"),
        fields={
            "cmd": Field("command", "command"),
            "envs": Field("env", "variables"),
            "env_keys": Field("inherit_env", "variable_names"),
            "uri": Field("url", "url"),
            "timeout": SECONDS,
            "available_tools": ALLOWED_IF_ANY,
            "name": Field("name"),
        },
        harmless=frozenset({"display_name"}),
        placeholders=frozenset({"dollar"}),
    ),
    Dialect("the MCP registry", (Table((), "registry"),), files=("/server.json",)),
    GENERIC,
    GENERIC._replace(tables=(Table((), "one"),)),
    _PLUGIN,
)
"""All formats. Where several fit, that of the file's name wins, then that with a mark, then the first without marks."""
