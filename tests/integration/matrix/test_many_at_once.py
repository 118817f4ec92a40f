"""A file such as clients have, with many programs in it, started at once with the defaults."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from pathlib import Path

import pytest
from support.calls import eventually
from support.orphans import no_orphans
from support.published_processes import prepare, stdio_config
from support.published_servers import DIRECTORY_VARIABLE, installed_servers, published_servers

from mcp_manager import McpManager, ServerState, load_manager_config

LEAST = 25
PATIENCE_S = 120.0


@pytest.mark.timeout(300)
async def test_every_program_of_one_file_comes_up(tmp_path: Path) -> None:
    servers = programs(tmp_path)
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    with no_orphans():
        async with McpManager(load_manager_config(path)) as manager:
            await manager.wait_ready(timeout=PATIENCE_S)
            await eventually(
                lambda: {view.state for view in manager.servers()} == {ServerState.HEALTHY}, "all of them Healthy"
            )
            assert sum(len(manager.server(name).pids) for name in servers) == len(servers)
            lists = await asyncio.gather(*(manager.list_tools(name, timeout=PATIENCE_S) for name in servers))
            assert all(lists)


def programs(directory: Path) -> dict[str, dict[str, object]]:
    """Return the installed servers that speak over stdio, as often as it takes to be many."""
    table = published_servers()
    there = [table[name] for name, problem in installed_servers().items() if not problem]
    there = [server for server in there if server.transport == "stdio"]
    if not there:
        pytest.skip("; ".join(set(installed_servers().values())))
    place = Path(os.environ[DIRECTORY_VARIABLE]).resolve()
    found: dict[str, dict[str, object]] = {}
    for number, server in zip(range(max(LEAST, len(there))), itertools.cycle(there), strict=False):
        own = directory / f"{server.name}-{number}"
        own.mkdir()
        prepare(own)
        found[own.name] = stdio_config(server.command(place, own))
    return found
