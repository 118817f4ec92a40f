"""Where a server answers whose URL is wrong: the usual paths and both transports are tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from mcp_manager.cli.grants import manager_of
from mcp_manager.config import HealthConfig, ManagerConfig, ServerConfig, redact_url
from mcp_manager.errors import AuthError, CallError, McpManagerError, ProtocolError, RpcError

__all__ = ["is_wrong_place", "other_endpoint"]

_USUAL: Final = ("/mcp", "/sse", "/mcp/", "/")
# Statuses of servers that are there, but not at this path or not in this way.
_STATUSES: Final = frozenset({400, 404, 405, 406, 410, 415, 501})
_TRIED_S: Final = 5.0

_Transport = Literal["http", "sse"]


def is_wrong_place(server: ServerConfig, error: McpManagerError) -> bool:
    """Tell whether a failure looks as if something answers there, but no MCP server."""
    if not isinstance(server.url, str) or not isinstance(error, CallError):
        return False
    return error.http_status in _STATUSES or isinstance(error, ProtocolError)


async def other_endpoint(server: ServerConfig) -> str:
    """Return what to set where the server answers, "" if it answers nowhere."""
    for url, transport in _candidates(server):
        config = msgspec.structs.replace(
            server,
            url=url,
            transport=transport,
            connect="lazy",
            connect_timeout_s=_TRIED_S,
            request_timeout_s=_TRIED_S,
            health=HealthConfig(enabled=False),
            instances=1,
        )
        async with manager_of(ManagerConfig(servers={"tried": config})) as manager:
            try:
                await manager.list_tools("tried")
            except (RpcError, AuthError):
                # It is an MCP server that answers with an error, or wants credentials.
                pass
            except McpManagerError:
                continue
        spoken = f' and transport = "{transport}"' if transport != server.transport else ""
        same = f"url = {redact_url(url)!r}".replace("'", '"')
        return f"set {same}{spoken}: an MCP server answers there"
    return ""


def _candidates(server: ServerConfig) -> Iterator[tuple[str, _Transport]]:
    own = str(server.url)
    parts = urlsplit(own)
    if server.transport == "http":
        yield own, "sse"
    elif server.transport == "sse":
        yield own, "http"
    for path in dict.fromkeys((f"{parts.path.rstrip('/')}/mcp", f"{parts.path.rstrip('/')}/sse", *_USUAL)):
        if path != parts.path:
            yield parts._replace(path=path).geturl(), "sse" if path.endswith("/sse") else "http"
