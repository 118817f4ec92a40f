"""The official SDK's server over streamable HTTP, with sessions, or over HTTP+SSE."""

from __future__ import annotations

from _sdk_tools import build_server
from _serving import argument_parser, serve

if __name__ == "__main__":
    options = argument_parser().parse_args()
    server = build_server(options.ledger)
    serve(server.sse_app() if options.sse else server.streamable_http_app(json_response=options.json), options.fd)
