"""What can be found by connecting to every server and listing its tools."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import msgspec

from mcp_manager.cli.connecting import progress, standing
from mcp_manager.cli.doctor.clocks import examine_clocks
from mcp_manager.cli.doctor.endpoints import is_wrong_place, other_endpoint
from mcp_manager.cli.doctor.findings import Finding
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.log_output import Collected, logging_to
from mcp_manager.cli.options import Options
from mcp_manager.cli.source import Fleet, is_url, lazy, patient
from mcp_manager.cli.view_findings import idle_entries, tool_names
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.errors import (
    AuthError,
    ConnectError,
    DeadlineExceededError,
    McpManagerError,
    ServerExitedError,
)
from mcp_manager.events.records import ChildExited
from mcp_manager.observe.views import ServerView

__all__ = ["examine_connections", "examine_tools"]

# What several interfaces of models take at most.
_MOST_TOOLS: Final = 128
_FETCHERS: Final = frozenset({"npx", "bunx", "pnpx", "uvx", "pipx", "uv"})
_SHOWN: Final = 5
# A hint on a program: advice, if there is any, and the end of its stderr.
_OF_PROGRAM: Final = re.compile(
    r"(?:it is started again in [0-9.]+ s)?(?:; )?(?P<advice>.*?)(?:; )?(?P<said>its stderr ends: .*)?", re.DOTALL
)
_WAITED: Final = "no handshake within start_timeout_s"


@dataclass(frozen=True)
class _Examined:
    """How a server answered: its tools or its failure, after how many seconds, and what is known of it then."""

    tools: Sequence[str] | McpManagerError
    seconds: float
    view: ServerView


async def examine_connections(fleet: Fleet, skipped: Iterable[str], options: Options) -> list[Finding]:
    """Connect to all servers but those that cannot work, and return what is wrong with them.

    Parameters
    ----------
    fleet
        The fleet; lazy servers are connected as well.
    skipped
        Servers of which is known already that they do not work.
    options
        Whether to show progress.
    """
    left_out = set(skipped)
    servers = {name: each for name, each in fleet.servers.items() if name not in left_out and each.instances}
    logged = Collected("mcp_manager.calls.tool_access")
    with logging_to(logged, logging.WARNING):
        examined = await _examined(msgspec.structs.replace(fleet.config, servers=servers), options)
    findings = [_useless_rule(record) for record in logged.records]
    for server_id, each in examined.items():
        server = servers[server_id]
        if isinstance(each.tools, McpManagerError):
            findings.append(await _failure(fleet, server_id, each.tools, each.view.last_exit))
        else:
            findings += _remarks(server_id, server, each)
    there = {name: servers[name] for name, each in examined.items() if _has_answered(each.tools)}
    findings += await examine_clocks(there)
    tools = {name: each.tools for name, each in examined.items() if not isinstance(each.tools, McpManagerError)}
    idle = idle_entries(fleet.views, fleet.rules, tools, fleet.known)
    findings += [Finding("warning", None, seen, "correct or remove it in the file") for seen in idle]
    return [*findings, *examine_tools(tools)]


def examine_tools(tools: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Return what is wrong with the tools of a fleet, by server, as a whole."""
    found = []
    owners: dict[str, list[str]] = defaultdict(list)
    for server_id, names in tools.items():
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            seen = f"it lists tools twice: {_some(twice)}"
            found.append(Finding("warning", server_id, seen, "report it to the author of the server"))
        for name in dict.fromkeys(names):
            owners[name].append(server_id)
    shared = [f"{name} ({', '.join(ids)})" for name, ids in owners.items() if len(ids) > 1]
    if shared:
        found.append(
            Finding(
                "note",
                None,
                f"several servers have tools of the same name: {_some(shared)}",
                "offer models the names of list_all_tools(), which are unique",
            )
        )
    total = sum(map(len, tools.values()))
    if total > _MOST_TOOLS:
        found.append(
            Finding(
                "warning",
                None,
                f"the fleet has {total} tools; several interfaces of models take at most {_MOST_TOOLS}",
                "offer a model only the tools that it needs: tools.allow of a server says which",
            )
        )
    return found


async def _examined(config: ManagerConfig, options: Options) -> dict[str, _Examined]:
    found: dict[str, _Examined] = {}

    async def examine(server_id: str) -> None:
        started = time.perf_counter()
        tools = await tool_names(manager, server_id)
        found[server_id] = _Examined(tools, time.perf_counter() - started, manager.server(server_id))

    def text() -> str:
        failed = sum(isinstance(each.tools, McpManagerError) for each in found.values())
        waiting = [name for name in config.servers if name not in found]
        return standing(len(found) - failed, len(config.servers), waiting, failed)

    async with manager_of(lazy(patient(config))) as manager, progress(options, text):
        await asyncio.gather(*map(examine, config.servers))
    return {server_id: found[server_id] for server_id in config.servers}


def _has_answered(outcome: Sequence[str] | McpManagerError) -> bool:
    """Tell whether anything answered by HTTP, be it a refusal."""
    if not isinstance(outcome, McpManagerError):
        return True
    return isinstance(outcome, AuthError) or getattr(outcome, "http_status", None) is not None


def _useless_rule(record: logging.LogRecord) -> Finding:
    """Return what the manager has logged of rules for tools that match none."""
    server_id = str(vars(record).get("server_id"))
    seen = record.getMessage().removeprefix(f"server {server_id!r}: ")
    return Finding("warning", server_id, seen, "correct or remove it in the file")


async def _failure(fleet: Fleet, server_id: str, error: McpManagerError, last_exit: ChildExited | None) -> Finding:
    """Say why a server does not answer; the error's own hint is the advice, where it has one."""
    server = fleet.servers[server_id]
    seen = error.message
    if is_wrong_place(server, error):
        advice = await other_endpoint(server)
        if advice:
            return Finding("error", server_id, seen, advice)
    of_program = _OF_PROGRAM.fullmatch(error.hint)
    assert of_program is not None
    advice = of_program["advice"]
    place = f"{fleet.place} {server_id}" if not is_url(fleet.place) else fleet.place
    if isinstance(error, ServerExitedError):
        said = last_exit.stderr if last_exit is not None else ""
        if not said:
            advice = "run its command by hand: it must serve MCP on its standard input and output, and not end"
            return Finding("error", server_id, seen, advice)
        correct = advice or "correct what it complains of"
        shown = f"{correct}; mcp-manager logs {place} shows all that it writes"
        return Finding("error", server_id, f"{seen}: {said}", shown)
    if isinstance(error, AuthError) and fleet.is_personal(server_id):
        return Finding("note", server_id, seen, fleet.advised(error).hint)
    if isinstance(error, AuthError) and server.auth.type == "oauth" and server.auth.grant == "authorization_code":
        return Finding("error", server_id, seen, f"mcp-manager login {place}")
    if isinstance(error, AuthError) and is_url(fleet.place) and error.is_challenged:
        return Finding("error", server_id, seen, f"mcp-manager login {place}")
    if of_program["said"]:
        seen = f"{seen} ({of_program['said']})"
    if advice:
        return Finding("error", server_id, seen, advice)
    if server.transport == "stdio" and (isinstance(error, DeadlineExceededError) or _WAITED in seen):
        advice = (
            "run it by hand: it may wait for input; if it is only slow, raise start_timeout_s or install it beforehand"
        )
        return Finding("error", server_id, seen, advice)
    if isinstance(error, ConnectError) and server.transport != "stdio":
        return Finding("error", server_id, seen, "check that the server runs, and its url")
    return Finding("error", server_id, seen, "check the server's own log")


def _remarks(server_id: str, server: ServerConfig, examined: _Examined) -> list[Finding]:
    """Say what is worth knowing of a server that answers."""
    found = []
    view = examined.view
    if examined.seconds > server.connect_timeout_s:
        fetches = PurePath(server.command or "").name in _FETCHERS
        found.append(
            Finding(
                "warning",
                server_id,
                f"it took {examined.seconds:.1f} s to come up, longer than connect_timeout_s "
                f"({server.connect_timeout_s:g} s): start() and deploy() do not wait for it",
                "install its package beforehand, so that it is not fetched" if fetches else "use wait_ready()",
            )
        )
    if view.found_endpoints:
        right = f'set url = "{view.found_endpoints[0]}": an MCP server answers there'
        found.append(Finding("warning", server_id, "its url has no path, and is no MCP endpoint", right))
    if view.transport == "sse":
        advice = "use its streamable HTTP endpoint, if it has one"
        if server.transport == "http":
            advice = f'set transport = "sse", or {advice}'
        found.append(Finding("note", server_id, "it speaks the SSE transport of 2024-11-05", advice))
    if view.faults:
        faults = ", ".join(f"{count} {kind}" for kind, count in view.faults.items())
        found.append(
            Finding(
                "warning", server_id, f"it sent what it should not: {faults}", "report it to the author of the server"
            )
        )
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
