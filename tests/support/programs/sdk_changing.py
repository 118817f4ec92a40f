"""The official SDK's server, with caching hints and a tool that changes tools and resources; ``--stdio`` or HTTP."""

from __future__ import annotations

import sys

from _serving import argument_parser, serve
from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer(
    "changing",
    log_level="ERROR",
    cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000), "resources/read": CacheHint(ttl_ms=3_600_000)},
)
text = ["first"]


@server.tool()
async def change(to: str, ctx: Context) -> str:  # type: ignore[type-arg]
    """Change the resource, and add a tool of that name."""
    text[0] = to
    server.add_tool(lambda: to, name=to, description="added")
    await ctx.notify_tools_changed()
    await ctx.notify_resource_updated("test://text")
    return to


@server.resource("test://text")
def read_text() -> str:
    """A text that changes."""
    return text[0]


if __name__ == "__main__":
    if "--stdio" in sys.argv:
        server.run("stdio")
    else:
        options = argument_parser().parse_args()
        serve(server.streamable_http_app(), options.fd)
