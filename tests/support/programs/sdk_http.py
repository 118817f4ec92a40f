"""The official SDK's server over streamable HTTP, with sessions or without, or over HTTP+SSE."""

from __future__ import annotations

from _sdk_tools import build_server
from _serving import argument_parser, serve

if __name__ == "__main__":
    parser = argument_parser()
    parser.add_argument("--stateless", action="store_true", help="keep no sessions")
    options = parser.parse_args()
    server = build_server(options.ledger)
    if options.sse:
        serve(server.sse_app(), options.fd)
    else:
        serve(server.streamable_http_app(json_response=options.json, stateless_http=options.stateless), options.fd)
