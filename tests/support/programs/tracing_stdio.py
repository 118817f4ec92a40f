"""A server over stdio that traces with OpenTelemetry, of the official SDK or, with ``--fastmcp``, of FastMCP."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider


def spans() -> str:
    """Return the trace of the server's own current span, and the span ids of its ancestors that are known."""
    span: Any = trace.get_current_span()
    assert isinstance(span, ReadableSpan)
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    return f"{context.trace_id:032x} {0 if parent is None else parent.span_id:016x} {parent is not None and parent.is_remote}"


if __name__ == "__main__":
    trace.set_tracer_provider(TracerProvider())
    server: Any
    if "--fastmcp" in sys.argv:
        from fastmcp import FastMCP

        server = FastMCP("tracing")
        server.tool(spans)
        server.run("stdio", show_banner=False, log_level="ERROR")
    else:
        from mcp.server.mcpserver import MCPServer

        server = MCPServer("tracing", log_level="ERROR")
        server.tool()(spans)
        server.run("stdio")
