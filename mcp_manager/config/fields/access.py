"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from mcp_manager.config.fields.issuers import IssuerFields
from mcp_manager.config.issuers import IssuerConfig
from mcp_manager.types import SequenceNotStr

__all__ = ["AllowFields", "ClientAuthFields", "ClientLimitFields"]


class AllowFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.AllowConfig`, as keyword arguments or as a mapping."""

    principals: SequenceNotStr[str]
    """Names of principals, or glob patterns. That of a token has its issuer in front:
    ``https://idp.example.com#alice``.
    """
    claims: Mapping[str, str | SequenceNotStr[str]]
    """Claims that the principal must have: a value, or several of which one is enough. A claim that is a list, or a
    text of words for ``scope``, must contain it. ``realm_access.roles`` is a claim within a claim.
    """
    scopes: SequenceNotStr[str]
    """Scopes that the principal must have, all of them."""
    views: SequenceNotStr[str]
    """The views; with ``*``, all views and the whole fleet. Default: wherever the servers are shown."""
    servers: SequenceNotStr[str]
    """The ids of servers, or glob patterns. Default: all."""
    tools: SequenceNotStr[str]
    """Names or glob patterns, tools and prompts as ``{server}__{name}``, resources as URIs. If none of the three is
    given: all of the servers. Otherwise nothing of a kind that is not given. The text of a template of URIs stands for
    all that is made from it. No pattern matches a URI with ``..`` in its path.
    """
    prompts: SequenceNotStr[str]
    """Names or glob patterns, tools and prompts as ``{server}__{name}``, resources as URIs. If none of the three is
    given: all of the servers. Otherwise nothing of a kind that is not given. The text of a template of URIs stands for
    all that is made from it. No pattern matches a URI with ``..`` in its path.
    """
    resources: SequenceNotStr[str]
    """Names or glob patterns, tools and prompts as ``{server}__{name}``, resources as URIs. If none of the three is
    given: all of the servers. Otherwise nothing of a kind that is not given. The text of a template of URIs stands for
    all that is made from it. No pattern matches a URI with ``..`` in its path.
    """
    methods: SequenceNotStr[str]
    """Methods of requests, or glob patterns such as ``resources/*``. Default: all. What only introduces a server or
    lists what is allowed is never forbidden.
    """


class ClientAuthFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ClientAuthConfig`, as keyword arguments or as a mapping."""

    type: Literal["none", "api_key", "jwt", "introspection"]
    """``none``; ``api_key``, a key of ``keys_file``; ``jwt``, a signed token of ``issuer`` (RFC 9068); or
    ``introspection``, any token that its authorization server knows (RFC 7662). Default: ``none``.
    """
    keys_file: str | None
    """A file with the names and hashes of API keys, which ``mcp-manager key`` makes; it is read again when it changes.
    With ``jwt`` or ``introspection``, they are accepted as well.
    """
    issuer: str | None
    """The issuer identifier of the authorization server. The gateway tells it to clients (RFC 9728)."""
    issuers: Sequence[IssuerConfig | IssuerFields]
    """Further authorization servers for ``jwt``, see :class:`IssuerConfig`. A token is examined by the keys of the one
    that it names. Rules and limits with ``claims`` or ``scopes`` are for the tokens of all of them, unless ``claims``
    names ``iss`` as well.
    """
    ca_file: str | None
    """The certificates to trust for authorization servers instead of the system's, as of a private certificate
    authority: a PEM file, or a directory of such files.
    """
    audience: SequenceNotStr[str]
    """What tokens must be meant for (RFC 8707): any one of these. Default: ``resource``, or the URL of the endpoint
    that is used.
    """
    resource: str | None
    """The public URL of the gateway, such as ``https://gateway.example.com``; its endpoints are below it. Default: as
    the request says.
    """
    jwks_url: str | None
    """Where the keys of the issuer are. Default: as the issuer's metadata says."""
    algorithms: SequenceNotStr[str]
    """The signature algorithms that are accepted. Default: ``('RS256', 'PS256', 'ES256', 'ES384', 'EdDSA',
    'Ed25519')``.
    """
    leeway_s: float
    """Seconds that the clocks may differ. Default: ``30.0``."""
    principal_claim: str
    """The claim that names the principal. Default: ``sub``."""
    scopes: SequenceNotStr[str]
    """The scopes that every token needs; API keys do not need them."""
    introspection_endpoint: str | None
    """Where tokens are looked up. Default: as the issuer's metadata says."""
    client_id: str | None
    """The credentials of the gateway at the introspection endpoint."""
    client_secret: str | None
    """The credentials of the gateway at the introspection endpoint."""
    operators: SequenceNotStr[str]
    """Names of principals, or glob patterns, that may read ``/metrics``, and why the gateway is not ready. Default: all
    that authenticate; as soon as there are rules in ``allow``, nobody. Those who are named may also use the admin API,
    if it has no token.
    """
    cache_s: float
    """Seconds that the answer about a token is used again at most; 0 asks each time. Default: ``60.0``."""


class ClientLimitFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ClientLimitConfig`, as keyword arguments or as a mapping."""

    principals: SequenceNotStr[str]
    """Names of principals, or glob patterns. Default: all."""
    claims: Mapping[str, str | SequenceNotStr[str]]
    """As for :class:`AllowConfig`."""
    views: SequenceNotStr[str]
    """The views whose requests count. Default: all requests."""
    tools: SequenceNotStr[str]
    """The tools whose calls count, as ``{server}__{tool}``, or glob patterns. Default: all requests."""
    rate: float
    """Requests per second on average, of each principal; 0 sets no limit. Default: ``0.0``."""
    burst: int
    """Requests that may come at once after a pause. Default: ``1``."""
    max_concurrent: int
    """Requests of each principal under way at a time; 0 sets no limit. Default: ``0``."""
    max_streams: int
    """Streams of each principal that are open at a time; 0 sets no limit. Default: ``0``."""
