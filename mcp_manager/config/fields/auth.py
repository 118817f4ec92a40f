"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from mcp_manager.types import SequenceNotStr

__all__ = ["AuthFields"]


class AuthFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.AuthConfig`, as keyword arguments or as a mapping."""

    type: Literal["none", "api_key", "bearer", "oauth"]
    """``none``; ``api_key``, which sends ``<header>: <key>``; ``bearer``, which sends ``Authorization: Bearer <token>``
    (RFC 6750, section 2.1); or ``oauth``, which obtains and renews tokens as MCP prescribes (2026-07-28,
    basic/authorization). The fields after ``header`` apply to ``oauth`` only. ``api_key`` and ``bearer`` need exactly
    one of their secret, ``token_file`` and ``token_command``. Default: ``none``.
    """
    key: str | None
    """The secret of ``api_key``: visible ASCII, inner spaces allowed."""
    token: str | None
    """The secret of ``bearer``, without the word "Bearer"."""
    token_file: str | None
    """A file with the token or key and nothing else. It is read again when it has changed, and after a 401."""
    token_command: SequenceNotStr[str]
    """A program that prints the token or key, and its arguments; never run through a shell. It runs before the first
    request, and again after a 401: once for all calls that wait. It has 30 s. It gets this process's environment and
    ``MCP_SERVER_ID``; what it writes to standard error is discarded.
    """
    header: str
    """The name of the header that carries ``key``; only for ``api_key``. Default: ``X-API-Key``."""
    grant: Literal["authorization_code", "client_credentials", "jwt_bearer", "enterprise"]
    """How to obtain tokens: ``authorization_code`` asks a user; ``client_credentials`` acts for the client itself;
    ``jwt_bearer`` presents ``assertion``, the identity of a workload (RFC 7523); ``enterprise`` first exchanges
    ``assertion``, a user's ID token, at the company's identity provider (RFC 8693, ID-JAG). Default:
    ``authorization_code``.
    """
    client_id: str | None
    """The client's credentials at the authorization server. Without ``client_id``, the client registers itself. Every
    grant except ``authorization_code`` needs ``client_id``.
    """
    client_secret: str | None
    """The client's credentials at the authorization server. Without ``client_id``, the client registers itself. Every
    grant except ``authorization_code`` needs ``client_id``.
    """
    issuer: str | None
    """The issuer identifier of the authorization server that ``client_id`` is registered with. Authorization fails if
    the MCP server names another one.
    """
    authorization_endpoint: str | None
    """The endpoints of an authorization server that publishes no metadata, such as GitHub's; they need ``client_id``.
    """
    token_endpoint: str | None
    """The endpoints of an authorization server that publishes no metadata, such as GitHub's; they need ``client_id``.
    """
    client_auth: Literal["client_secret_basic", "client_secret_post"] | None
    """How the client secret is sent to the token endpoint. Default: as the authorization server's metadata or its reply
    to the registration says.
    """
    client_metadata_url: str | None
    """An https URL that serves the client's metadata. It is the client id at authorization servers that support this.
    """
    private_key: str | None
    """A PEM key that authenticates the client instead of a secret (``private_key_jwt``), its key id, and the algorithm
    to sign with; needs the extra ``oauth``.
    """
    private_key_id: str | None
    """A PEM key that authenticates the client instead of a secret (``private_key_jwt``), its key id, and the algorithm
    to sign with; needs the extra ``oauth``.
    """
    signing_algorithm: Literal["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"]
    """A PEM key that authenticates the client instead of a secret (``private_key_jwt``), its key id, and the algorithm
    to sign with; needs the extra ``oauth``. Default: ``ES256``.
    """
    scopes: SequenceNotStr[str]
    """The scopes to request if the MCP server does not say which ones it needs."""
    send_resource: bool
    """Send the ``resource`` parameter (RFC 8707), as MCP requires. Turn it off for Microsoft Entra ID, which refuses
    it. Default: ``True``.
    """
    assume_pkce: bool
    """Continue if the authorization server's metadata does not say whether it checks PKCE. MCP forbids this; Microsoft
    Entra ID needs it, because it checks PKCE without saying so. PKCE is sent in any case. Default: ``False``.
    """
    allow_private_addresses: bool
    """Accept an authorization server on a private network from an MCP server that is not on one. Hosts that ``issuer``
    and the configured endpoints name are always accepted. Default: ``False``.
    """
    parameters: Mapping[str, str]
    """Additional parameters of the request that starts a grant, such as ``audience`` for Auth0."""
    redirect_uri: str
    """Where the authorization server sends the user back to: the URI on which the redirect handler listens. Default:
    ``http://127.0.0.1:33418/callback``.
    """
    authorization_timeout_s: float
    """Seconds the user has to agree, above 0. Default: ``300.0``."""
    assertion: str | None
    """The assertion of ``jwt_bearer`` or ``enterprise``: the text itself, or a file that is read for each use."""
    assertion_file: str | None
    """The assertion of ``jwt_bearer`` or ``enterprise``: the text itself, or a file that is read for each use."""
    idp_token_endpoint: str | None
    """The token endpoint of the identity provider of ``enterprise``, and the client's credentials there."""
    idp_client_id: str | None
    """The token endpoint of the identity provider of ``enterprise``, and the client's credentials there."""
    idp_client_secret: str | None
    """The token endpoint of the identity provider of ``enterprise``, and the client's credentials there."""
    dpop: bool
    """Bind tokens to a key and prove possession of the key with every request (RFC 9449); needs the extra ``oauth``.
    Default: ``False``.
    """
