"""The configuration of what servers get to know of a client of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.server_credentials import ServerCredentialsFields

__all__ = ["ServerCredentialsConfig"]

_Texts = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(max_length=100)]


class ServerCredentialsConfig(Settings, frozen=True, kw_only=True):
    """Configure with which credentials the gateway sends the requests of clients to one HTTP server.

    With anything but the defaults, sessions, lists and results at this server are kept apart by client.

    Parameters
    ----------
    type
        ``own``: the credentials in the configuration of the server, for all clients. ``exchange``: the gateway
        exchanges the token of the client at ``token_endpoint`` for a token for this server and this principal
        (RFC 8693). ``enterprise``: in two steps, the identity provider exchanges the token of the client for an
        identity assertion (ID-JAG), and ``token_endpoint`` exchanges that for a token of the server.
    pass_headers
        Header fields of the client that the server gets unchanged. ``Authorization``, cookies, API keys and the
        fields of MCP and HTTP are not possible. The gateway opens sessions for each combination of values, so
        fields that differ in every request are costly.
    authorization_header
        A header field of the client, such as ``X-GitHub-Authorization``. The server gets its value as
        ``Authorization``. It is for clients that have a token of this server. If a client does not send it, the
        server gets no credentials.
    pass_client_token
        Whether the server gets ``Authorization`` of the client unchanged. Whoever runs the server can then use
        that token everywhere. It is only possible if the gateway does not check the token itself: with
        ``serve.auth.type = "none"``.
    token_endpoint
        The URL to exchange tokens at. With ``enterprise``, the token endpoint of the authorization server of
        the server.
    client_id, client_secret
        The credentials of the gateway at ``token_endpoint``.
    client_auth
        How the gateway sends the secret: ``client_secret_basic`` or ``client_secret_post``. Default:
        ``client_secret_basic``.
    private_key, private_key_id, signing_algorithm
        A PEM key, its id and its algorithm. The gateway authenticates with it in place of a secret
        (``private_key_jwt``).
    subject_token_type
        The type of the client's token at the token endpoint: ``access_token``, ``id_token`` or ``jwt``.
        Default: ``access_token``; with ``enterprise``, ``id_token``.
    audience
        The audience of the new token, by a name that the token endpoint knows. With ``enterprise``, the issuer
        identifier of the authorization server of the server.
    resource
        The audience of the new token, by its URL (RFC 8707). Default: the URL of the server, unless
        ``audience`` is set.
    scopes
        The scopes to request.
    idp_token_endpoint, idp_client_id, idp_client_secret
        With ``enterprise``: the token endpoint of the identity provider, and the credentials of the gateway
        there.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ServerCredentialsFields]) -> None: ...

    type: Literal["own", "exchange", "enterprise"] = "own"
    pass_headers: _Texts = ()
    authorization_header: str | None = None
    pass_client_token: bool = False
    token_endpoint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    client_auth: Literal["client_secret_basic", "client_secret_post"] | None = None
    private_key: str | None = None
    private_key_id: str | None = None
    signing_algorithm: Literal["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"] = "ES256"
    subject_token_type: Literal["access_token", "id_token", "jwt"] | None = None
    audience: str | None = None
    resource: str | None = None
    scopes: _Texts = ()
    idp_token_endpoint: str | None = None
    idp_client_id: str | None = None
    idp_client_secret: str | None = None

    @property
    def is_personal(self) -> bool:
        """Whether the server gets something of each client, so that nothing at it is shared among clients."""
        return (
            self.type != "own"
            or bool(self.pass_headers)
            or self.authorization_header is not None
            or self.pass_client_token
        )
