"""The names that telemetry uses: one table of metrics, attributes and units.

Names without the prefix ``mcp_manager.`` are those of the OpenTelemetry semantic conventions for MCP, which are still in
development; a test compares them with the registry's own constants.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["AS_OF", "FAMILIES", "SCHEMA_URL", "SCOPE", "SEMCONV_BOUNDS_S", "Family"]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
"""The schema of the conventions' repository, open-telemetry/semantic-conventions-genai."""
AS_OF: Final = "2026-11-29"
"""When the names were last compared with it."""
SCOPE: Final = "mcp_manager"
"""The name of the instrumentation scope."""

# Attributes of the conventions
METHOD: Final = "mcp.method.name"
PROTOCOL_VERSION: Final = "mcp.protocol.version"
RESOURCE_URI: Final = "mcp.resource.uri"
ERROR_TYPE: Final = "error.type"
STATUS_CODE: Final = "rpc.response.status_code"
OPERATION: Final = "gen_ai.operation.name"
EXECUTE_TOOL: Final = "execute_tool"
TOOL: Final = "gen_ai.tool.name"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
PROMPT: Final = "gen_ai.prompt.name"
TRANSPORT: Final = "network.transport"
TRANSPORTS: Final = {"stdio": "pipe", "memory": "inproc"}
"""Values of ``network.transport`` by our own names; all others are ``tcp``."""
NETWORK_PROTOCOL: Final = "network.protocol.name"
ADDRESS: Final = "server.address"
PORT: Final = "server.port"
TOOL_ERROR: Final = "tool_error"
"""The ``error.type`` of a result that says ``isError``."""

# Attributes of our own
SERVER: Final = "mcp_manager.server.id"
INSTANCE: Final = "mcp_manager.instance.id"
DELIVERY: Final = "mcp_manager.delivery"
ATTEMPTS: Final = "mcp_manager.attempts"
HEDGED: Final = "mcp_manager.hedged"
QUEUE_WAIT: Final = "mcp_manager.queue.wait"
CIRCUIT: Final = "mcp_manager.breaker.state"
AFTERWARDS: Final = "mcp_manager.after_the_fact"
"""Whether a span was made after its call had ended, because it failed or was slow."""
STATE: Final = "mcp_manager.state"
RESULT: Final = "mcp_manager.result"
SOURCE: Final = "mcp_manager.fallback.source"
CAUSE: Final = "mcp_manager.restart.cause"

SEMCONV_BOUNDS_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The bounds that the conventions advise for ``mcp.client.operation.duration``, in seconds."""


class Family(NamedTuple):
    """One metric.

    ``kind`` says how its points are exported: ``durations`` as histograms, ``total`` as a monotonic sum, ``level`` as a
    gauge.
    """

    name: str
    kind: Literal["durations", "total", "level"]
    unit: str
    description: str


DURATION: Final = Family(
    "mcp.client.operation.duration",
    "durations",
    "s",
    "Duration of requests to a server, from the choice of an instance to the reply or failure",
)
CALLS: Final = Family("mcp_manager.client.calls", "total", "{call}", "Calls that ended, by method and error")
RETRIES: Final = Family("mcp_manager.retries", "total", "{attempt}", "Attempts after one that failed")
HEDGES: Final = Family("mcp_manager.hedges", "total", "{attempt}", "Second attempts of calls that took long")
FALLBACKS: Final = Family("mcp_manager.fallbacks", "total", "{answer}", "Fallback answers by source")
PROBES: Final = Family("mcp_manager.health_checks", "total", "{check}", "Health probes by result")
RESTARTS: Final = Family("mcp_manager.child.restarts", "total", "{restart}", "Restarts of child processes by cause")
ACTIVE: Final = Family("mcp_manager.calls.active", "level", "{call}", "Calls under way")
WAITING: Final = Family("mcp_manager.calls.waiting", "level", "{call}", "Calls that wait because a limit is reached")
INSTANCES: Final = Family("mcp_manager.instances", "level", "{instance}", "Instances by state")
# Not the unit "1": Prometheus would call it a ratio.
BREAKER: Final = Family(
    "mcp_manager.breaker", "level", "{state}", "State of the circuits: 0 closed, 1 open, 2 half open"
)
SERVERS: Final = Family("mcp_manager.servers", "level", "{server}", "Servers by health")
LOOP_LAG: Final = Family("mcp_manager.loop.lag", "level", "s", "How late the event loop is")
EXPORTS: Final = Family("mcp_manager.telemetry.exports", "total", "{request}", "Requests to the collector by result")
LOST_POINTS: Final = Family("mcp_manager.telemetry.lost", "total", "{point}", "Data points that no collector accepted")

FAMILIES: Final = (
    DURATION,
    CALLS,
    RETRIES,
    HEDGES,
    FALLBACKS,
    PROBES,
    RESTARTS,
    ACTIVE,
    WAITING,
    INSTANCES,
    BREAKER,
    SERVERS,
    LOOP_LAG,
    EXPORTS,
    LOST_POINTS,
)
"""All metrics."""
