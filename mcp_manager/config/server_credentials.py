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
        ``own``: those that the configuration of the server gives, for all clients. ``exchange``: a token for this
        server and this principal, for which ``token_endpoint`` takes the token of the client (RFC 8693).
        ``enterprise``: the same in two steps: the identity provider gives an identity assertion for the token of the
        client, and ``token_endpoint`` a token of the server for that (ID-JAG).
    pass_headers
        Header fields of the client that are passed on to the server as they are. ``Authorization``, cookies, API keys
        and the fields of MCP and HTTP itself are refused. Each set of values has sessions of its own at the server, so
        fields that differ with every request are costly.
    authorization_header
        A header field of the client, such as ``X-GitHub-Authorization``, whose value the server gets as
        ``Authorization``: for clients that have a token of this very server. Without it, none is sent for them.
    pass_client_token
        Pass ``Authorization`` of the client on as it is. Whoever runs the server can then use that token wherever it is
        accepted. Only if the gateway does not check it itself, that is with ``serve.auth.type = "none"``.
    token_endpoint
        Where tokens are exchanged; with ``enterprise``, that of the server's authorization server.
    client_id, client_secret
        The credentials of the gateway there.
    client_auth
        How the secret is sent: ``client_secret_basic`` or ``client_secret_post``. Default: ``client_secret_basic``.
    private_key, private_key_id, signing_algorithm
        A PEM key that authenticates the gateway in place of a secret (``private_key_jwt``), its id, and the algorithm.
    subject_token_type
        What the token of the client is, as the token endpoint calls it: ``access_token``, ``id_token`` or ``jwt``.
        Default: ``access_token``; with ``enterprise``, ``id_token``.
    audience
        What the token is for, by a name that the token endpoint knows. With ``enterprise``, the issuer identifier of
        the server's authorization server.
    resource
        What the token is for, by its URL (RFC 8707). Default: the URL of the server, unless ``audience`` is given.
    scopes
        The scopes to request.
    idp_token_endpoint, idp_client_id, idp_client_secret
        The token endpoint of the identity provider of ``enterprise``, and the credentials of the gateway there.
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
