"""The verbs that show the servers of a fleet: check, list, status."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import click
import msgspec

from mcp_manager.cli.connecting import is_shown, progress, standing
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import error_object, note, print_json
from mcp_manager.cli.source import Fleet, load
from mcp_manager.cli.table import paragraph, render
from mcp_manager.cli.view_findings import idle_entries, tool_names
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.config.redaction import shown_place
from mcp_manager.errors import ConfigError, McpManagerError
from mcp_manager.health.tally import STARTING
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView
from mcp_manager.types import ServerState

__all__ = ["check_servers", "connected", "is_starting", "list_servers", "print_problems", "status", "without_servers"]

_POLL_S: Final = 0.05
# Looking at more servers ten times a second would slow down their connecting.
_MANY: Final = 1_000


async def check_servers(options: Options) -> int:
    """Connect to every server, lazy ones included; return 0 if all of them answer, else 1.

    It waits for programs that are still starting, because they may be downloaded first.
    """
    fleet = await load(options)
    async with connected(fleet, options) as (manager, took_ms):
        views = manager.servers()
        asked = [view.id for view in views if view.ready and (fleet.views or fleet.rules)]
        listed = await asyncio.gather(*(tool_names(manager, server_id) for server_id in asked))
    reachable = {view.id: view.ready == view.desired for view in views}
    if options.json:
        print_json(
            [
                {"reachable": reachable[view.id], "connect_ms": round(took_ms[view.id], 3), **_plain(view)}
                for view in views
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
                took_ms[view.id] if view.ready else None,
            ]
            for view in views
        ]
        _print_table(("server", "transport", "reachable", "ready", "protocol", "connect ms"), rows, fleet)
        print_problems(views)
    tools = {name: each for name, each in zip(asked, listed, strict=True) if not isinstance(each, McpManagerError)}
    for sentence in idle_entries(fleet.views, fleet.rules, tools, fleet.known):
        note(f"warning: {sentence}", quiet=options.quiet)
    if fleet.serve is not None:
        # Most fleets have no gateway, which is slow to import.
        from mcp_manager.cli.start_problems import start_problems  # noqa: PLC0415 - see above

        for problem in start_problems(fleet.serve):
            note(f"warning: mcp-manager serve cannot start on this machine: {problem}", quiet=options.quiet)
    return 0 if all(reachable.values()) else 1


async def list_servers(options: Options) -> int:
    """List the configured servers without connecting, and without their secrets; return 0."""
    fleet = await load(options)
    servers = fleet.servers
    if options.json:
        listed = [{**_described(server_id, server), "enabled": True} for server_id, server in servers.items()]
        off = [{"id": server_id, "enabled": False} for server_id in fleet.switched_off]
        print_json([*listed, *off, *_left_out(fleet)])
    else:
        rows = [list(_described(server_id, server).values()) for server_id, server in servers.items()]
        for row in rows:
            row[-1] = ", ".join(row[-1])
            row[1] = row[1] if row[1] != row[0] else None
        headers = ("server", "name", "type", "transport", "where", "instances", "priority", "tags")
        _print_table(headers, rows, fleet, prose=("name", "where", "tags"))
        if fleet.switched_off:
            print(f"\n{paragraph('switched off', ', '.join(fleet.switched_off))}")
    return 0


async def status(options: Options) -> int:
    """Start the fleet as configured, and show the state of every server; return 1 if one is Unhealthy, else 0."""
    if options.watch and options.snapshot:
        raise click.UsageError("--watch and --snapshot exclude each other")
    fleet = await load(options)
    if options.watch:
        from mcp_manager.cli.status_watch import watch  # noqa: PLC0415 - only --watch needs it

        return await watch(fleet, options)
    manager = manager_of(fleet.config)
    async with progress(options, up_of(manager, len(fleet.servers))), manager:
        snapshot = manager.snapshot() if options.snapshot else None
        views = manager.servers()
    if snapshot is not None:
        print_json(msgspec.to_builtins(snapshot))
    elif options.json:
        print_json([_plain(view) for view in views])
    else:
        headers = ("server", "state", "circuit", "ready", "transport", "protocol", "why")
        rows = [
            [
                view.id,
                view.state,
                view.circuit,
                f"{view.ready}/{view.desired}",
                view.transport,
                view.protocol_version,
                ", ".join(view.reasons),
            ]
            for view in views
        ]
        _print_table(headers, rows, fleet, prose=("why",))
        print_problems(views)
    return 1 if any(view.state is ServerState.UNHEALTHY for view in views) else 0


@contextlib.asynccontextmanager
async def connected(fleet: Fleet, options: Options) -> AsyncIterator[tuple[McpManager, dict[str, float]]]:
    """Run a manager that has connected to every server, or failed to; yield it with the milliseconds of each."""
    config, took_ms = fleet.config, dict.fromkeys(fleet.servers, 0.0)

    async def connect(server_id: str, server: ServerConfig) -> None:
        started = time.perf_counter()
        await _deploy(manager, server_id, server, options)
        took_ms[server_id] = 1000 * (time.perf_counter() - started)

    async with manager_of(without_servers(config)) as manager:
        async with progress(options, up_of(manager, len(config.servers))):
            await asyncio.gather(*(connect(*each) for each in config.servers.items()))
        yield manager, took_ms


def up_of(manager: McpManager, total: int) -> Callable[[], str]:
    """Return a function that says how many servers are up, and which are not yet."""

    def text() -> str:
        if total > _MANY:
            return standing(manager.health().healthy_servers, total, ())
        views = manager.servers()
        waiting = [view.id for view in views if view.ready < view.desired and not _has_failed(view)]
        failed = sum(view.ready < view.desired and _has_failed(view) for view in views)
        return standing(sum(view.ready >= view.desired for view in views), total, waiting, failed)

    return text


def is_starting(view: ServerView) -> bool:
    """Tell whether the program of a server is still starting."""
    return STARTING in view.reasons


def print_problems(views: Sequence[ServerView]) -> None:
    """Print each server's last error in full, below the table."""
    failing = [view for view in views if view.last_error is not None]
    if failing:
        print()
    for view in failing:
        print(paragraph(view.id, view.last_error or ""))


def without_servers(config: ManagerConfig) -> ManagerConfig:
    """Return the configuration of a manager that has no servers yet."""
    return msgspec.structs.replace(config, servers={})


async def _deploy(manager: McpManager, server_id: str, server: ServerConfig, options: Options) -> None:
    """Deploy and probe a server, waiting while its program starts."""
    await manager.deploy(server_id, msgspec.structs.replace(server, connect="eager"))
    if server.transport == "stdio" and is_starting(manager.server(server_id)):
        if not is_shown(options):
            limit = f"waiting up to {server.start_timeout_s:g} s (start_timeout_s)"
            note(f"{server_id} is still starting; {limit}", quiet=options.quiet)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(server.start_timeout_s):
                while is_starting(manager.server(server_id)):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)


def _has_failed(view: ServerView) -> bool:
    return view.state is ServerState.UNHEALTHY and view.last_error is not None and not is_starting(view)


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


def _left_out(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the problems of servers that were left out as one error; without ``--json``, the log tells them."""
    if not fleet.problems:
        return []
    error = ConfigError(f"{fleet.place}: servers were left out")
    error.problems = fleet.problems
    return [error_object(error)]


def _verdict(view: ServerView) -> str:
    if not view.desired:
        return "suspended"
    return "yes" if view.ready == view.desired else "partly" if view.ready else "no"


def _plain(view: ServerView) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(view)
    return plain


def _print_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], fleet: Fleet, prose: Sequence[str] = ()
) -> None:
    print(render(headers, rows, prose=prose) if rows else f"no servers in {fleet.shown}")
