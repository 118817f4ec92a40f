"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import Literal, TypedDict

from mcp_manager.types import SequenceNotStr

__all__ = ["ServerCredentialsFields"]


class ServerCredentialsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ServerCredentialsConfig`, as keyword arguments or as a mapping."""

    type: Literal["own", "exchange", "enterprise"]
    """``own``: those that the configuration of the server gives, for all clients. ``exchange``: a token for this server
    and this principal, for which ``token_endpoint`` takes the token of the client (RFC 8693). ``enterprise``: the same
    in two steps: the identity provider gives an identity assertion for the token of the client, and ``token_endpoint``
    a token of the server for that (ID-JAG). Default: ``own``.
    """
    pass_headers: SequenceNotStr[str]
    """Header fields of the client that are passed on to the server as they are. ``Authorization``, cookies, API keys
    and the fields of MCP and HTTP itself are refused. Each set of values has sessions of its own at the server, so
    fields that differ with every request are costly.
    """
    authorization_header: str | None
    """A header field of the client, such as ``X-GitHub-Authorization``, whose value the server gets as
    ``Authorization``: for clients that have a token of this very server. Without it, none is sent for them.
    """
    pass_client_token: bool
    """Pass ``Authorization`` of the client on as it is. Whoever runs the server can then use that token wherever it is
    accepted. Only if the gateway does not check it itself, that is with ``serve.auth.type = "none"``. Default:
    ``False``.
    """
    token_endpoint: str | None
    """Where tokens are exchanged; with ``enterprise``, that of the server's authorization server."""
    client_id: str | None
    """The credentials of the gateway there."""
    client_secret: str | None
    """The credentials of the gateway there."""
    client_auth: Literal["client_secret_basic", "client_secret_post"] | None
    """How the secret is sent: ``client_secret_basic`` or ``client_secret_post``. Default: ``client_secret_basic``."""
    private_key: str | None
    """A PEM key that authenticates the gateway in place of a secret (``private_key_jwt``), its id, and the algorithm.
    """
    private_key_id: str | None
    """A PEM key that authenticates the gateway in place of a secret (``private_key_jwt``), its id, and the algorithm.
    """
    signing_algorithm: Literal["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"]
    """A PEM key that authenticates the gateway in place of a secret (``private_key_jwt``), its id, and the algorithm.
    Default: ``ES256``.
    """
    subject_token_type: Literal["access_token", "id_token", "jwt"] | None
    """What the token of the client is, as the token endpoint calls it: ``access_token``, ``id_token`` or ``jwt``.
    Default: ``access_token``; with ``enterprise``, ``id_token``.
    """
    audience: str | None
    """What the token is for, by a name that the token endpoint knows. With ``enterprise``, the issuer identifier of the
    server's authorization server.
    """
    resource: str | None
    """What the token is for, by its URL (RFC 8707). Default: the URL of the server, unless ``audience`` is given."""
    scopes: SequenceNotStr[str]
    """The scopes to request."""
    idp_token_endpoint: str | None
    """The token endpoint of the identity provider of ``enterprise``, and the credentials of the gateway there."""
    idp_client_id: str | None
    """The token endpoint of the identity provider of ``enterprise``, and the credentials of the gateway there."""
    idp_client_secret: str | None
    """The token endpoint of the identity provider of ``enterprise``, and the credentials of the gateway there."""
