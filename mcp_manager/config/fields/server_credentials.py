"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import Literal, TypedDict

from mcp_manager.types import SequenceNotStr

__all__ = ["ServerCredentialsFields"]


class ServerCredentialsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ServerCredentialsConfig`, as keyword arguments or as a mapping."""

    type: Literal["own", "exchange", "enterprise"]
    """``own``: the credentials in the configuration of the server, for all clients. ``exchange``: the gateway exchanges
    the token of the client at ``token_endpoint`` for a token for this server and this principal (RFC 8693).
    ``enterprise``: in two steps, the identity provider exchanges the token of the client for an identity assertion
    (ID-JAG), and ``token_endpoint`` exchanges that for a token of the server. Default: ``own``.
    """
    pass_headers: SequenceNotStr[str]
    """Header fields of the client that the server gets unchanged. ``Authorization``, cookies, API keys and the fields
    of MCP and HTTP are not possible. The gateway opens sessions for each combination of values, so fields that differ
    in every request are costly.
    """
    authorization_header: str | None
    """A header field of the client, such as ``X-GitHub-Authorization``. The server gets its value as ``Authorization``.
    It is for clients that have a token of this server. If a client does not send it, the server gets no credentials.
    """
    pass_client_token: bool
    """Whether the server gets ``Authorization`` of the client unchanged. Whoever runs the server can then use that
    token everywhere. It is only possible if the gateway does not check the token itself: with ``serve.auth.type =
    "none"``. Default: ``False``.
    """
    token_endpoint: str | None
    """The URL to exchange tokens at. With ``enterprise``, the token endpoint of the authorization server of the server.
    """
    client_id: str | None
    """The credentials of the gateway at ``token_endpoint``."""
    client_secret: str | None
    """The credentials of the gateway at ``token_endpoint``."""
    client_auth: Literal["client_secret_basic", "client_secret_post"] | None
    """How the gateway sends the secret: ``client_secret_basic`` or ``client_secret_post``. Default:
    ``client_secret_basic``.
    """
    private_key: str | None
    """A PEM key, its id and its algorithm. The gateway authenticates with it in place of a secret
    (``private_key_jwt``).
    """
    private_key_id: str | None
    """A PEM key, its id and its algorithm. The gateway authenticates with it in place of a secret
    (``private_key_jwt``).
    """
    signing_algorithm: Literal["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"]
    """A PEM key, its id and its algorithm. The gateway authenticates with it in place of a secret
    (``private_key_jwt``). Default: ``ES256``.
    """
    subject_token_type: Literal["access_token", "id_token", "jwt"] | None
    """The type of the client's token at the token endpoint: ``access_token``, ``id_token`` or ``jwt``. Default:
    ``access_token``; with ``enterprise``, ``id_token``.
    """
    audience: str | None
    """The audience of the new token, by a name that the token endpoint knows. With ``enterprise``, the issuer
    identifier of the authorization server of the server.
    """
    resource: str | None
    """The audience of the new token, by its URL (RFC 8707). Default: the URL of the server, unless ``audience`` is set.
    """
    scopes: SequenceNotStr[str]
    """The scopes to request."""
    idp_token_endpoint: str | None
    """With ``enterprise``: the token endpoint of the identity provider, and the credentials of the gateway there."""
    idp_client_id: str | None
    """With ``enterprise``: the token endpoint of the identity provider, and the credentials of the gateway there."""
    idp_client_secret: str | None
    """With ``enterprise``: the token endpoint of the identity provider, and the credentials of the gateway there."""
