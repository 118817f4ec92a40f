"""Configuration as users write it, for type checkers: all of it is right, but for the lines that say what is refused.

mypy reports a comment ``type: ignore`` that is not needed, so each of these lines is known to be refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmcp import FastMCP

from mcp_manager import (
    AuthConfig,
    AuthFields,
    BalancingConfig,
    ManagerConfig,
    McpManager,
    PyMcpManager,
    Selector,
    ServerConfig,
    ServerFields,
)

TOKEN = os.environ.get("TOKEN", "")
SHARED: ServerFields = {"connect": "lazy", "tags": ["shared"], "retry": {"attempts": 2, "budget": {"ratio": 0.1}}}
AUTH: AuthFields = {"type": "bearer", "token": TOKEN}


def configurations(tags: Sequence[str], headers: dict[str, str], settings: dict[str, Any]) -> ManagerConfig:
    """Lists and mappings where the structs have tuples and structs."""
    search = ServerConfig(url="https://search.example.com/mcp", tags=["web", *tags], headers=headers)
    many = ServerConfig(url=["https://a.example.com/mcp", "https://b.example.com/mcp"], tags=tags)
    files = ServerConfig(command="npx", args=["-y", "server"], env={"A": "1"}, restart={"initial_s": 1})
    secured = ServerConfig(
        url="https://api.example.com/mcp",
        auth={"type": "bearer", "token": TOKEN},
        balancing={"policy": "least_connections", "weights": [1, 2.5]},
        limits={"max_concurrent": 8, "rate": {"rate": 5}, "tools": {"slow": {"rate": 1, "burst": 2}}},
        breaker={"rpc_errors": [-32603]},
        tools={"allow": ["get_*"], "deny": ("get_secret",)},
    )
    struct = ServerConfig(url="https://c.example.com/mcp", auth=AuthConfig(type="oauth", scopes=["read"]))
    return ManagerConfig(
        servers={
            "search": search,
            "many": many,
            "files": files,
            "secured": secured,
            "struct": struct,
            "short": "https://d.example.com/mcp",
            "fields": {"url": "https://e.example.com/mcp", "auth": AUTH},
            "loose": settings,
        },
        telemetry={"metrics": True, "traces": {"ratio": 0.1}},
        max_connections=500,
    )


async def managers(fleet: ManagerConfig, path: Path, document: dict[str, Any]) -> None:
    """Everything that a manager can be made from, and a server from."""
    server: FastMCP = FastMCP("tools")
    for manager in (
        McpManager(),
        McpManager(fleet),
        McpManager(path),
        McpManager("fleet.toml"),
        McpManager("https://search.example.com/mcp"),
        McpManager({"mcpServers": {"files": {"command": "npx", "args": ["server"]}}}),
        McpManager({"servers": {"search": {"url": "https://search.example.com/mcp"}, "tools": server}}),
        McpManager({"search": "https://search.example.com/mcp", "tools": server}),
        McpManager(document),
        McpManager(server),
        McpManager([server, "https://search.example.com/mcp", path]),
        McpManager.from_file(path, lenient=True, handlers={"ping": lambda server_id, params: {}}),
    ):
        await manager.deploy("a", url="https://a.example.com/mcp", tags=["a"], limits={"max_concurrent": 8})
        await manager.deploy("b", "https://b.example.com/mcp", **SHARED)
        await manager.deploy("c", ["npx", "-y", "server"])
        await manager.deploy("d", {"url": "https://d.example.com/mcp", "transport": "sse"})
        await manager.deploy("e", ServerConfig(url="https://e.example.com/mcp"), priority=3)
        await manager.deploy("f", server, instances=2)
        await manager.deploy("g", document)
        await manager.redeploy("a", "https://a2.example.com/mcp", strategy="canary", percentage=5, tags=["a"])
        await manager.apply({"servers": {"a": "https://a.example.com/mcp"}})
        await manager.execute_text(Selector(tags=["a"]), '{"method": "ping"}')


def threads(path: str, document: dict[str, Any]) -> None:
    """The same from threads."""
    with PyMcpManager(path) as manager:
        manager.deploy_server("a", url="https://a.example.com/mcp", auth=AUTH)
        manager.deploy_server("b", '{"url": "https://b.example.com/mcp"}')
        manager.redeploy_server("a", url="https://a2.example.com/mcp", strategy="rolling", batch=2)
        manager.apply(document)
    PyMcpManager({"mcpServers": {}})
    PyMcpManager.from_file(Path(path), lenient=True)


async def refused(manager: McpManager) -> None:
    """What type checkers refuse: a word that is none of the choices, an unknown field, a text in place of a list."""
    ServerConfig(url="http://h/mcp", connect="later")  # type: ignore[arg-type]
    ServerConfig(url="http://h/mcp", tags="web")  # type: ignore[arg-type]
    ServerConfig(url="http://h/mcp", urls="http://h/mcp")  # type: ignore[call-arg]
    ServerConfig(url="http://h/mcp", auth={"type": "basic"})  # type: ignore[arg-type]
    ServerConfig(url="http://h/mcp", auth={"typ": "bearer"})  # type: ignore[arg-type]
    BalancingConfig(policy="fastest")  # type: ignore[arg-type]
    ManagerConfig(max_connections="many")  # type: ignore[arg-type]
    Selector(tags="web")  # type: ignore[arg-type]
    await manager.deploy("a", url="http://h/mcp", transport="carrier pigeon")  # type: ignore[arg-type]
    await manager.deploy("a", url="http://h/mcp", limits={"max_concurrency": 8})  # type: ignore[arg-type]
    await manager.redeploy("a", "http://h/mcp", strategy="sudden")  # type: ignore[arg-type]
