"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from mcp_manager.config.fields.rates import RetryBudgetFields
from mcp_manager.config.fields.telemetry import TelemetryFields
from mcp_manager.config.rates import RetryBudgetConfig
from mcp_manager.config.spec import ServerSpec
from mcp_manager.config.telemetry import TelemetryConfig

__all__ = ["ManagerFields"]


class ManagerFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ManagerConfig`, as keyword arguments or as a mapping."""

    servers: Mapping[str, ServerSpec]
    """Server configurations by server id: each a :class:`ServerConfig`, or whatever describes a server for
    :meth:`McpManager.deploy`.
    """
    max_connections: int | None
    """The most HTTP connections at a time, over all servers; 0 sets no limit. Open event streams are counted
    separately, up to the same number. Default: about half of the file descriptors that the process may have, from 16 to
    10,000. Further calls wait in order until their deadlines.
    """
    max_connections_per_origin: int
    """The most connections to one scheme, host and port; 0 sets no limit. A call keeps its connection until its reply
    is complete, so this also bounds the calls in flight to an origin. Default: ``100``.
    """
    http_lanes: bool
    """Speak HTTP in compiled code on the connections that aiohttp opens. ``False`` sends every call as a plain aiohttp
    request: same results, several times the cost. Default: ``True``.
    """
    connect_concurrency: int
    """How many servers are connected over HTTP, and how many are probed, at a time. Default: ``64``."""
    start_concurrency: int
    """How many programs are started at a time; 0 for sixteen per core. A program that only waits, for example for a
    download, does not count. Starts for calls come first, then first starts, then restarts. Programs whose last start
    failed have separate slots. Default: ``0``.
    """
    probe_concurrency: int
    """How many servers are connected over HTTP, and how many are probed, at a time. Default: ``64``."""
    shutdown_timeout_s: float
    """Seconds ``stop()`` may take; then it ends by force whatever is left. Default: ``10.0``."""
    handler_timeout_s: float
    """Seconds a handler may take to answer a server's request, such as a question to the user; then the server gets an
    error. Default: ``300.0``.
    """
    list_timeout_s: float
    """Seconds that ``list_all_tools()`` waits for the tools of a server if its caller gives no timeout. Default:
    ``5.0``.
    """
    max_concurrent: int
    """The most calls in flight at a time, over all servers; 0 sets no limit. Up to ``max_waiting`` further calls wait
    in order, each for up to ``max_wait_s`` seconds. Default: ``0``.
    """
    max_waiting: int
    """The most calls in flight at a time, over all servers; 0 sets no limit. Up to ``max_waiting`` further calls wait
    in order, each for up to ``max_wait_s`` seconds. Default: ``1000``.
    """
    max_wait_s: float
    """The most calls in flight at a time, over all servers; 0 sets no limit. Up to ``max_waiting`` further calls wait
    in order, each for up to ``max_wait_s`` seconds. Default: ``1.0``.
    """
    retry_budget: RetryBudgetConfig | RetryBudgetFields
    """The budget for retries and hedges of all servers together; the budget of each server applies as well."""
    flight_records: int
    """How many of the latest calls to keep detailed records of; 0 keeps none. Default: ``256``."""
    max_tool_series: int
    """How many tools, over all servers, have metrics of their own: those that were used most recently. The rest of a
    server's tools are counted together, as ``_other``. 0 counts no tools. Default: ``1000``.
    """
    telemetry: TelemetryConfig | TelemetryFields
    """What is exported to an OpenTelemetry collector, see :class:`TelemetryConfig`."""
    client_name: str
    """How the manager identifies itself in the MCP handshake and in ``User-Agent``: 1 to 256 printable ASCII
    characters. Default: ``mcp-manager``.
    """
    client_version: str
    """How the manager identifies itself in the MCP handshake and in ``User-Agent``: 1 to 256 printable ASCII
    characters. Default: ``0.1.0``.
    """
