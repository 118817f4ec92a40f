"""The configuration of a manager, as a frozen struct."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import msgspec
from msgspec import Meta

from mcp_manager._version import __version__
from mcp_manager.config._struct import Count, PositiveSeconds, Seconds, Settings
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.rates import RetryBudgetConfig
from mcp_manager.config.spec import server_config_of
from mcp_manager.config.telemetry import TelemetryConfig
from mcp_manager.errors import ConfigError

if TYPE_CHECKING:
    from mcp_manager.config.fields.manager import ManagerFields

__all__ = ["ManagerConfig"]


class ManagerConfig(Settings, frozen=True, kw_only=True):
    """Configure a manager and the servers that it deploys when it starts.

    Parameters
    ----------
    servers
        Server configurations by server id: each a :class:`ServerConfig`, or whatever describes a server for
        :meth:`McpManager.deploy`.
    max_connections
        The most HTTP connections at a time, over all servers; 0 sets no limit. Open event streams are counted
        separately, up to the same number. Default: about half of the file descriptors that the process may have, from
        16 to 10,000. Further calls wait in order until their deadlines.
    max_connections_per_origin
        The most connections to one scheme, host and port; 0 sets no limit. A call keeps its connection until its reply
        is complete, so this also bounds the calls in flight to an origin.
    http_lanes
        Speak HTTP in compiled code on the connections that aiohttp opens. ``False`` sends every call as a plain aiohttp
        request: same results, several times the cost.
    connect_concurrency, probe_concurrency
        How many servers are connected over HTTP, and how many are probed, at a time.
    start_concurrency
        How many programs are started at a time; 0 for sixteen per core. A program that only waits, for example for a
        download, does not count. Starts for calls come first, then first starts, then restarts. Programs whose last
        start failed have separate slots.
    shutdown_timeout_s
        Seconds ``stop()`` may take; then it ends by force whatever is left.
    handler_timeout_s
        Seconds a handler may take to answer a server's request, such as a question to the user; then the server gets an
        error.
    list_timeout_s
        Seconds that ``list_all_tools()`` waits for the tools of a server if its caller gives no timeout.
    max_concurrent, max_waiting, max_wait_s
        The most calls in flight at a time, over all servers; 0 sets no limit. Up to ``max_waiting`` further calls wait
        in order, each for up to ``max_wait_s`` seconds.
    retry_budget
        The budget for retries and hedges of all servers together; the budget of each server applies as well.
    flight_records
        How many of the latest calls to keep detailed records of; 0 keeps none.
    max_tool_series
        How many tools, over all servers, have metrics of their own: those that were used most recently. The rest of a
        server's tools are counted together, as ``_other``. 0 counts no tools.
    telemetry
        What is exported to an OpenTelemetry collector, see :class:`TelemetryConfig`.
    client_name, client_version
        How the manager identifies itself in the MCP handshake and in ``User-Agent``: 1 to 256 printable ASCII
        characters.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ManagerFields]) -> None: ...

    servers: dict[str, ServerConfig] = {}
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    max_connections_per_origin: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    http_lanes: bool = True
    connect_concurrency: Count = 64
    start_concurrency: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    probe_concurrency: Count = 64
    shutdown_timeout_s: PositiveSeconds = 10.0
    handler_timeout_s: PositiveSeconds = 300.0
    list_timeout_s: PositiveSeconds = 5.0
    max_concurrent: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    max_waiting: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000
    max_wait_s: Seconds = 1.0
    retry_budget: RetryBudgetConfig = RetryBudgetConfig(min_per_s=100.0)
    flight_records: Annotated[int, Meta(ge=0, le=1_000_000)] = 256
    max_tool_series: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000
    telemetry: TelemetryConfig = TelemetryConfig()
    client_name: str = "mcp-manager"
    client_version: str = __version__

    def __post_init__(self) -> None:
        super().__post_init__()
        servers: Any = self.servers
        if isinstance(servers, Mapping) and not all(isinstance(each, ServerConfig) for each in servers.values()):
            built = {name: _built(name, each) for name, each in servers.items()}
            msgspec.structs.force_setattr(self, "servers", built)


def _built(server_id: str, spec: Any) -> ServerConfig:
    try:
        return server_config_of(server_id, spec)
    except ConfigError as error:
        # The only place that knows which of the servers it is about.
        named = ConfigError(f"server {server_id!r:.256}: {error.message}", server_id=error.server_id, hint=error.hint)
    try:
        raise named
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del named
