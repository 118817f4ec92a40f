"""A fastmcp server over streamable HTTP, with the tools that the tests call on every server."""

from __future__ import annotations

from _fastmcp_tools import server
from _serving import argument_parser, serve

if __name__ == "__main__":
    options = argument_parser().parse_args()
    serve(server.http_app(path="/mcp", json_response=options.json), options.fd)
