"""The official SDK's server behind the official SDK's authorization server, with dynamic registration."""

from __future__ import annotations

from _noting_provider import NotingProvider, control, origin_of
from _serving import argument_parser, serve
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.server.mcpserver import MCPServer

if __name__ == "__main__":
    options = argument_parser().parse_args()
    origin = origin_of(options.fd)
    registration = ClientRegistrationOptions(enabled=True, valid_scopes=["user", "write"], default_scopes=["user"])
    provider = NotingProvider(base_url=origin, client_registration_options=registration)
    server = MCPServer(
        "private",
        log_level="ERROR",
        auth_server_provider=provider,
        auth=AuthSettings.model_validate(
            {
                "issuer_url": origin,
                "resource_server_url": f"{origin}/mcp",
                "client_registration_options": registration,
                "required_scopes": ["user", "write"],
                "validate_token_resource": True,
            }
        ),
    )

    @server.tool()
    def echo(text: str) -> str:
        """Return the text."""
        return text

    server.custom_route("/control/{what}", methods=["POST"])(control(provider))
    serve(server.streamable_http_app(), options.fd)
