"""The configuration of a server's credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

from mcp_manager.config._struct import PositiveSeconds, Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.auth import AuthFields

__all__ = ["AuthConfig"]


class AuthConfig(Settings, frozen=True, kw_only=True):
    """Configure how requests to an HTTP server are authenticated.

    Parameters
    ----------
    type
        ``none``; ``api_key``, which sends ``<header>: <key>``; ``bearer``, which sends
        ``Authorization: Bearer <token>`` (RFC 6750, section 2.1); or ``oauth``, which obtains and renews tokens as MCP
        prescribes (2026-07-28, basic/authorization). The fields after ``header`` apply to ``oauth`` only. ``api_key``
        and ``bearer`` need exactly one of their secret, ``token_file`` and ``token_command``.
    key
        The secret of ``api_key``: visible ASCII, inner spaces allowed.
    token
        The secret of ``bearer``, without the word "Bearer".
    token_file
        A file with the token or key and nothing else. It is read again when it has changed, and after a 401.
    token_command
        A program that prints the token or key, and its arguments; never run through a shell. It runs before the first
        request, and again after a 401: once for all calls that wait. It has 30 s. It gets this process's environment
        and ``MCP_SERVER_ID``; what it writes to standard error is discarded.
    header
        The name of the header that carries ``key``; only for ``api_key``.
    grant
        How to obtain tokens: ``authorization_code`` asks a user; ``client_credentials`` acts for the client itself;
        ``jwt_bearer`` presents ``assertion``, the identity of a workload (RFC 7523); ``enterprise`` first exchanges
        ``assertion``, a user's ID token, at the company's identity provider (RFC 8693, ID-JAG).
    client_id, client_secret
        The client's credentials at the authorization server. Without ``client_id``, the client registers itself. Every
        grant except ``authorization_code`` needs ``client_id``.
    issuer
        The issuer identifier of the authorization server that ``client_id`` is registered with. Authorization fails if
        the MCP server names another one.
    authorization_endpoint, token_endpoint
        The endpoints of an authorization server that publishes no metadata, such as GitHub's; they need ``client_id``.
    client_auth
        How the client secret is sent to the token endpoint. Default: as the authorization server's metadata or its
        reply to the registration says.
    client_metadata_url
        An https URL that serves the client's metadata. It is the client id at authorization servers that support this.
    private_key, private_key_id, signing_algorithm
        A PEM key that authenticates the client instead of a secret (``private_key_jwt``), its key id, and the algorithm
        to sign with; needs the extra ``oauth``.
    scopes
        The scopes to request if the MCP server does not say which ones it needs.
    send_resource
        Send the ``resource`` parameter (RFC 8707), as MCP requires. Turn it off for Microsoft Entra ID, which refuses
        it.
    assume_pkce
        Continue if the authorization server's metadata does not say whether it checks PKCE. MCP forbids this; Microsoft
        Entra ID needs it, because it checks PKCE without saying so. PKCE is sent in any case.
    allow_private_addresses
        Accept an authorization server on a private network from an MCP server that is not on one. Hosts that ``issuer``
        and the configured endpoints name are always accepted.
    parameters
        Additional parameters of the request that starts a grant, such as ``audience`` for Auth0.
    redirect_uri
        Where the authorization server sends the user back to: the URI on which the redirect handler listens.
    authorization_timeout_s
        Seconds the user has to agree, above 0.
    assertion, assertion_file
        The assertion of ``jwt_bearer`` or ``enterprise``: the text itself, or a file that is read for each use.
    idp_token_endpoint, idp_client_id, idp_client_secret
        The token endpoint of the identity provider of ``enterprise``, and the client's credentials there.
    dpop
        Bind tokens to a key and prove possession of the key with every request (RFC 9449); needs the extra ``oauth``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[AuthFields]) -> None: ...

    type: Literal["none", "api_key", "bearer", "oauth"] = "none"
    key: str | None = None
    token: str | None = None
    token_file: str | None = None
    token_command: tuple[str, ...] = ()
    header: str = "X-API-Key"
    grant: Literal["authorization_code", "client_credentials", "jwt_bearer", "enterprise"] = "authorization_code"
    client_id: str | None = None
    client_secret: str | None = None
    issuer: str | None = None
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    client_auth: Literal["client_secret_basic", "client_secret_post"] | None = None
    client_metadata_url: str | None = None
    private_key: str | None = None
    private_key_id: str | None = None
    signing_algorithm: Literal["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"] = "ES256"
    scopes: tuple[str, ...] = ()
    send_resource: bool = True
    assume_pkce: bool = False
    allow_private_addresses: bool = False
    parameters: dict[str, str] = {}
    redirect_uri: str = "http://127.0.0.1:33418/callback"
    authorization_timeout_s: PositiveSeconds = 300.0
    assertion: str | None = None
    assertion_file: str | None = None
    idp_token_endpoint: str | None = None
    idp_client_id: str | None = None
    idp_client_secret: str | None = None
    dpop: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Leave out the ``oauth`` fields that have their default values."""
        always = ("type", "key", "token", "header")
        fields = super().__rich_repr__()
        unset = AuthConfig()
        return [(name, value) for name, value in fields if name in always or value != getattr(unset, name)]

    @property
    def is_read(self) -> bool:
        """Whether the secret comes from a file or a program, and may change."""
        return self.token_file is not None or bool(self.token_command)

    def request_header(self) -> tuple[str, str] | None:
        """Return the name and value of the header to send, a secret; ``None`` if it is not part of the configuration."""
        if self.type not in ("api_key", "bearer") or self.is_read:
            return None
        return self.header_for((self.key if self.type == "api_key" else self.token) or "")

    def header_for(self, secret: str) -> tuple[str, str]:
        """Return the name and value of the header that carries a key or token."""
        return (self.header, secret) if self.type == "api_key" else ("Authorization", f"Bearer {secret}")
