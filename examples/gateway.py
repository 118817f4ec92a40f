"""Put two MCP servers behind one address, with a view for support, and use them as a client would.

Run it with: python examples/gateway.py
"""

from __future__ import annotations

import asyncio
import sys

from mcp_manager import McpManager
from mcp_manager.gateway import Gateway

SERVER = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]}

FLEET = {
    "servers": {"office": SERVER, "archive": SERVER},
    # Port 0 is any free one. Without it, the gateway listens on 127.0.0.1:8080.
    "serve": {"listen": "127.0.0.1:0"},
    "views": {
        "support": {
            "servers": ["office"],
            "tools": ["office__add", "office__echo"],
            "names": "short",
            "rename": {"office__echo": "repeat"},
        },
    },
}


async def main() -> None:
    """Serve the fleet, and call a tool at each kind of endpoint."""
    async with Gateway(FLEET) as gateway:
        await gateway.manager.wait_ready()
        clients = {
            "everything": f"{gateway.url}/mcp",
            "support": f"{gateway.url}/mcp/support",
            "archive": f"{gateway.url}/servers/archive/mcp",
        }
        # Any MCP client will do; this one speaks with all three endpoints.
        async with McpManager(clients) as client:
            for name in clients:
                tools = await client.list_tools(name)
                print(f"{name}: {', '.join(tool.name for tool in tools)}")
            result = await client.call_tool("everything", "archive__add", {"a": 2, "b": 3})
            print(f"archive__add: {result.text}")
            result = await client.call_tool("support", "repeat", {"text": "hello"})
            print(f"repeat: {result.text}")


if __name__ == "__main__":
    asyncio.run(main())
