"""The verbs that work on a configuration file."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from typing import Any

import msgspec

from mcp_manager.cli.table import render
from mcp_manager.config import ManagerConfig, load_manager_config, redact_url
from mcp_manager.errors import InvalidRequestError, McpManagerError
from mcp_manager.manager import McpManager
from mcp_manager.views import ServerView

__all__ = ["call", "check", "list_configured", "status", "tools"]


async def check(options: Namespace) -> int:
    """Connect to every server; 0 if all answered, 1 otherwise."""
    views = await _views(load_manager_config(options.config))
    print(render(("server", "transport", "reachable", "revision", "problem"), [_check_row(view) for view in views]))
    return 0 if all(view.ready for view in views) else 1


async def list_configured(options: Namespace) -> int:
    """Show what the file configures."""
    config = load_manager_config(options.config)
    rows = [
        {
            "server": server_id,
            "transport": server.transport,
            "where": server.command or _where(server.url),
            "priority": server.priority,
            "instances": server.instances,
            "tags": list(server.tags),
        }
        for server_id, server in config.servers.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        cells = [[row["server"], row["transport"], row["priority"], row["instances"], row["where"]] for row in rows]
        print(render(("server", "transport", "priority", "instances", "where"), cells))
    return 0


async def status(options: Namespace) -> int:
    """Connect to every server and show its state; 1 if one is Unhealthy."""
    views = await _views(load_manager_config(options.config))
    if options.json:
        print(json.dumps([msgspec.to_builtins(view) for view in views], indent=2))
    else:
        rows = [
            [view.id, view.transport, view.state.value, view.circuit, f"{view.ready}/{view.desired}", _why(view)]
            for view in views
        ]
        print(render(("server", "transport", "state", "circuit", "ready", "why"), rows))
    return 1 if any(view.state.value == "Unhealthy" for view in views) else 0


async def tools(options: Namespace) -> int:
    """List tools; 1 if a server did not say."""
    config = load_manager_config(options.config)
    if options.server is not None:
        config = _only(config, options.server)
    failed = False
    found: list[dict[str, Any]] = []
    async with McpManager(config) as manager:
        if options.server is not None:
            manager.server(options.server)
        ids = list(config.servers)
        answers = await asyncio.gather(*(manager.list_tools(each) for each in ids), return_exceptions=True)
    for server_id, answer in zip(ids, answers, strict=True):
        if isinstance(answer, McpManagerError):
            failed = True
            found.append({"server": server_id, "error": str(answer)})
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found += [{"server": server_id, "tool": tool.name, "description": tool.description} for tool in answer]
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        rows = [
            [row["server"], row.get("tool"), _one_line(row.get("description") or row.get("error"))] for row in found
        ]
        print(render(("server", "tool", "description"), rows))
    return 1 if failed else 0


async def call(options: Namespace) -> int:
    """Send one request and print the response; 1 if it is an error."""
    config = _only(load_manager_config(options.config), options.server)
    request: dict[str, Any] = {"id": 1, "method": options.method}
    if options.params is not None:
        try:
            request["params"] = json.loads(options.params)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"Invalid request: params is not JSON: {error}") from None
    async with McpManager(config) as manager:
        reply = await manager.execute_raw(options.server, json.dumps(request).encode(), timeout=options.timeout)
    print(reply.decode("utf-8"))
    decoded = json.loads(reply)
    return 1 if isinstance(decoded, dict) and "error" in decoded else 0


async def _views(config: ManagerConfig) -> list[ServerView]:
    async with McpManager(config) as manager:
        return manager.servers()


def _only(config: ManagerConfig, server_id: str) -> ManagerConfig:
    """Reduce a configuration to one server, or to none: the manager then says that it is not there."""
    servers = {name: server for name, server in config.servers.items() if name == server_id}
    return msgspec.structs.replace(config, servers=servers)


def _check_row(view: ServerView) -> list[object]:
    return [view.id, view.transport, "yes" if view.ready else "no", view.protocol_version, _why(view)]


def _why(view: ServerView) -> str:
    return _one_line(view.last_error or ", ".join(view.reasons))


def _where(url: str | tuple[str, ...] | None) -> str:
    if isinstance(url, tuple):
        return f"{redact_url(url[0])} and {len(url) - 1} more"
    return redact_url(url) if url is not None else ""


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
