"""A server over HTTP that traces with OpenTelemetry, of the official SDK or, with ``--fastmcp``, of FastMCP.

The requests of HTTP get spans, too, whose parents come from the header fields, as OpenTelemetry's own middleware makes
them.
"""

from __future__ import annotations

from typing import Any

from _serving import argument_parser, serve
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider, export
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

made = InMemorySpanExporter()


def spans() -> str:
    """Return the spans so far and the current one, a line for each: name, trace, own id and that of the parent."""
    current: Any = trace.get_current_span()
    return "\n".join(
        f"{each.name.replace(' ', '/')} {each.context.trace_id:032x} {each.context.span_id:016x} "
        f"{0 if each.parent is None else each.parent.span_id:016x}"
        for each in (*made.get_finished_spans(), current)
        if each.context is not None
    )


def traced(app: Any) -> Any:
    """Return an application that ends a span, whose parent the header fields name, before it answers a POST."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            fields = [(name.decode(), value.decode()) for name, value in scope["headers"]]
            assert len(dict(fields)) == len(fields), "a header field came twice"
            parent = propagate.extract(dict(fields))
            trace.get_tracer("http").start_span("POST", context=parent).end()
        await app(scope, receive, send)

    return answer


if __name__ == "__main__":
    parser = argument_parser()
    parser.add_argument("--fastmcp", action="store_true", help="FastMCP in place of the official SDK")
    options = parser.parse_args()
    provider = TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)
    server: Any
    if options.fastmcp:
        from fastmcp import FastMCP

        server = FastMCP("tracing")
        server.tool(spans)
        serve(traced(server.http_app(path="/mcp")), options.fd)
    else:
        from mcp.server.mcpserver import MCPServer

        server = MCPServer("tracing", log_level="ERROR")
        server.tool()(spans)
        serve(traced(server.streamable_http_app()), options.fd)
