"""The verbs that act on the servers of a configuration file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mcp_manager.cli.table import complain, paragraph, render
from mcp_manager.config import ManagerConfig, ServerConfig, load_manager_config
from mcp_manager.config.redaction import shown_place
from mcp_manager.errors import InvalidRequestError, McpManagerError, ProtocolError, ServerNotFoundError
from mcp_manager.health.tally import STARTING
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView
from mcp_manager.results import Tool
from mcp_manager.types import ServerState

__all__ = ["call", "check_servers", "list_servers", "status", "tools"]

_POLL_S: Final = 0.05


async def check_servers(options: Namespace) -> int:
    """Connect to every server, lazy ones included; return 0 if all of them answer, else 1.

    It waits for programs that are still starting, because they may be downloaded first.
    """
    config = load_manager_config(options.config)
    async with McpManager(_without_servers(config)) as manager:
        took_ms = await asyncio.gather(*(_deploy(manager, *each) for each in config.servers.items()))
        views = manager.servers()
    reachable = {view.id: view.ready == view.desired for view in views}
    if options.json:
        _print_json(
            [
                {"reachable": reachable[view.id], "connect_ms": round(ms, 3), **_plain(view)}
                for view, ms in zip(views, took_ms, strict=True)
            ]
        )
    else:
        rows = [
            [
                view.id,
                view.transport,
                _verdict(view),
                f"{view.ready}/{view.desired}",
                view.protocol_version,
                ms if view.ready else None,
            ]
            for view, ms in zip(views, took_ms, strict=True)
        ]
        _print_table(("server", "transport", "reachable", "ready", "protocol", "connect ms"), rows, options.config)
        _print_problems(views)
    return 0 if all(reachable.values()) else 1


async def list_servers(options: Namespace) -> int:
    """List the configured servers without connecting, and without their secrets; return 0."""
    servers = load_manager_config(options.config).servers
    if options.json:
        _print_json([_described(server_id, server) for server_id, server in servers.items()])
    else:
        rows = [list(_described(server_id, server).values()) for server_id, server in servers.items()]
        for row in rows:
            row[-1] = ", ".join(row[-1])
        headers = ("server", "name", "type", "transport", "where", "instances", "priority", "tags")
        _print_table(headers, rows, options.config)
    return 0


async def status(options: Namespace) -> int:
    """Start the fleet as configured, and show the state of every server; return 1 if one is Unhealthy, else 0."""
    async with McpManager(load_manager_config(options.config)) as manager:
        views = manager.servers()
        snapshot = manager.snapshot() if options.snapshot else None
    if snapshot is not None:
        _print_json(msgspec.to_builtins(snapshot))
    elif options.json:
        _print_json([_plain(view) for view in views])
    else:
        rows = [
            [
                view.id,
                view.transport,
                view.state,
                view.circuit,
                f"{view.ready}/{view.desired}",
                view.protocol_version,
                ", ".join(view.reasons),
            ]
            for view in views
        ]
        _print_table(("server", "transport", "state", "circuit", "ready", "protocol", "why"), rows, options.config)
        _print_problems(views)
    return 1 if any(view.state is ServerState.UNHEALTHY for view in views) else 0


async def tools(options: Namespace) -> int:
    """List the tools of all servers that are not suspended, or of one; return 1 if a server failed, else 0."""
    config = load_manager_config(options.config)
    if options.server is not None:
        config = _only(config, options.server)
    async with McpManager(_lazy(_patient(config))) as manager:
        asked = [name for name, server in config.servers.items() if server.instances or name == options.server]
        answers = await asyncio.gather(*(_tools_of(manager, server_id) for server_id in asked))
    listed = dict(zip(asked, answers, strict=True))
    failures = {server_id: answer for server_id, answer in listed.items() if isinstance(answer, McpManagerError)}
    found = [(server_id, tool) for server_id, answer in listed.items() if isinstance(answer, list) for tool in answer]
    if options.json:
        _print_json(
            [{"server": server_id, **msgspec.json.decode(msgspec.json.encode(tool))} for server_id, tool in found]
        )
    else:
        rows = [[server_id, tool.name, tool.description or tool.title] for server_id, tool in found]
        if rows or not failures:
            _print_table(("server", "tool", "description"), rows, options.config, nothing="no tools")
    for error in failures.values():
        complain(str(error))
    return 1 if failures else 0


async def call(options: Namespace) -> int:
    """Send one request and print the JSON-RPC response; return 1 if that is an error, else 0."""
    if options.timeout is not None and not 0 < options.timeout < math.inf:
        raise InvalidRequestError("--timeout must be a number of seconds above 0")
    config = _only(load_manager_config(options.config), options.server)
    if options.timeout is None:
        config = _patient(config)
    request = _request(options.method, options.params)
    async with McpManager(_lazy(config)) as manager:
        reply = await manager.execute_raw(options.server, request, timeout=options.timeout)
    try:
        decoded = msgspec.json.decode(reply)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the reply is not JSON: {error}", server_id=options.server, delivery="answered") from None
    shown = msgspec.json.format(reply, indent=2) if sys.stdout.isatty() else reply
    print(shown.decode("utf-8", "replace"))
    return 1 if isinstance(decoded, dict) and "error" in decoded else 0


def _request(method: str, params: str | None) -> bytes:
    """Build the request with the params unchanged; a notification gets no id."""
    request: dict[str, Any] = {} if method.startswith("notifications/") else {"id": 1}
    try:
        request["method"] = method
        if params is not None:
            msgspec.json.decode(params)
            request["params"] = msgspec.Raw(params.encode())
        return msgspec.json.encode(request)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequestError(f"Invalid request: PARAMS_JSON is not JSON: {error}") from None
    except UnicodeEncodeError:
        raise InvalidRequestError("Invalid request: the arguments are not UTF-8") from None


async def _deploy(manager: McpManager, server_id: str, server: ServerConfig) -> float:
    """Deploy and probe a server, waiting while its program starts; return how many milliseconds that took."""
    started = time.perf_counter()
    await manager.deploy(server_id, msgspec.structs.replace(server, connect="eager"))
    if server.transport == "stdio" and _is_starting(manager, server_id):
        complain(f"{server_id} is still starting; waiting up to {server.start_timeout_s:g} s (start_timeout_s)")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(server.start_timeout_s):
                while _is_starting(manager, server_id):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
    return 1000 * (time.perf_counter() - started)


def _is_starting(manager: McpManager, server_id: str) -> bool:
    return STARTING in manager.server(server_id).reasons


async def _tools_of(manager: McpManager, server_id: str) -> list[Tool] | McpManagerError:
    try:
        return await manager.list_tools(server_id)
    except McpManagerError as error:
        return error


def _without_servers(config: ManagerConfig) -> ManagerConfig:
    return msgspec.structs.replace(config, servers={})


def _only(config: ManagerConfig, server_id: str) -> ManagerConfig:
    """Reduce a configuration to one of its servers."""
    if server_id not in config.servers:
        raise ServerNotFoundError(server_id, hint=f"configured: {', '.join(config.servers) or 'none'}")
    return msgspec.structs.replace(config, servers={server_id: config.servers[server_id]})


def _lazy(config: ManagerConfig) -> ManagerConfig:
    """Connect lazily, so that a failure to connect is reported by the request and not by an earlier probe."""
    servers = {name: msgspec.structs.replace(server, connect="lazy") for name, server in config.servers.items()}
    return msgspec.structs.replace(config, servers=servers)


def _patient(config: ManagerConfig) -> ManagerConfig:
    """Let requests wait for as long as a program may take to start, including its download."""
    servers = {
        name: msgspec.structs.replace(server, request_timeout_s=max(server.request_timeout_s, server.start_timeout_s))
        if server.transport == "stdio"
        else server
        for name, server in config.servers.items()
    }
    return msgspec.structs.replace(config, servers=servers)


def _described(server_id: str, server: ServerConfig) -> dict[str, Any]:
    return {
        "id": server_id,
        "name": server.name or server_id,
        "server_type": server.server_type,
        "transport": server.transport,
        "where": _where(server),
        "instances": server.instances,
        "priority": server.priority,
        "tags": list(server.tags),
    }


def _where(server: ServerConfig) -> str:
    if server.command is not None:
        return shown_place(server, server.command)
    urls = (server.url,) if isinstance(server.url, str) else server.url or ("",)
    first = shown_place(server, urls[0])
    return f"{first} and {len(urls) - 1} more" if len(urls) > 1 else first


def _verdict(view: ServerView) -> str:
    if not view.desired:
        return "suspended"
    return "yes" if view.ready == view.desired else "partly" if view.ready else "no"


def _plain(view: ServerView) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(view)
    return plain


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], path: str, nothing: str = "no servers"
) -> None:
    print(render(headers, rows) if rows else f"{nothing} in {path}")


def _print_problems(views: Sequence[ServerView]) -> None:
    """Print each server's last error in full, below the table."""
    failing = [view for view in views if view.last_error is not None]
    if failing:
        print()
    for view in failing:
        print(paragraph(view.id, view.last_error or ""))
