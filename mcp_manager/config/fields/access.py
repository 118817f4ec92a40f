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
    """Names of principals, or glob patterns. The name for a token begins with its issuer:
    ``https://idp.example.com#alice``.
    """
    claims: Mapping[str, str | SequenceNotStr[str]]
    """The claims that the principal needs, each with a value or a list of values; one of the values must match. If the
    claim of the token is a list, or the words of ``scope``, one entry must match. ``realm_access.roles`` is a claim
    inside a claim.
    """
    scopes: SequenceNotStr[str]
    """The scopes that the principal needs, all of them."""
    views: SequenceNotStr[str]
    """The views where the rule holds; ``*`` stands for all views and ``/mcp``. Default: all endpoints that show the
    servers.
    """
    servers: SequenceNotStr[str]
    """The ids of servers, or glob patterns. Default: all."""
    tools: SequenceNotStr[str]
    """Names or glob patterns: ``{server}__{name}`` for tools and prompts, URIs for resources. Without any of these
    three fields, the rule allows everything of its servers. With one of them, it allows nothing of the other two kinds.
    A resource template, given as it is, allows all URIs that match it. No pattern matches a URI with ``..`` in its
    path.
    """
    prompts: SequenceNotStr[str]
    """Names or glob patterns: ``{server}__{name}`` for tools and prompts, URIs for resources. Without any of these
    three fields, the rule allows everything of its servers. With one of them, it allows nothing of the other two kinds.
    A resource template, given as it is, allows all URIs that match it. No pattern matches a URI with ``..`` in its
    path.
    """
    resources: SequenceNotStr[str]
    """Names or glob patterns: ``{server}__{name}`` for tools and prompts, URIs for resources. Without any of these
    three fields, the rule allows everything of its servers. With one of them, it allows nothing of the other two kinds.
    A resource template, given as it is, allows all URIs that match it. No pattern matches a URI with ``..`` in its
    path.
    """
    methods: SequenceNotStr[str]
    """Methods of requests, or glob patterns such as ``resources/*``. Default: all. Requests that introduce a server or
    list what is allowed need no rule.
    """


class ClientAuthFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ClientAuthConfig`, as keyword arguments or as a mapping."""

    type: Literal["none", "api_key", "jwt", "introspection"]
    """``none``; ``api_key``, a key of ``keys_file``; ``jwt``, a signed token of ``issuer`` (RFC 9068); or
    ``introspection``, a token that the gateway looks up at the authorization server (RFC 7662). Default: ``none``.
    """
    keys_file: str | None
    """The file with the names and hashes of API keys. ``mcp-manager key`` writes it, and the gateway follows its
    changes. With ``jwt`` or ``introspection``, the gateway accepts these keys as well.
    """
    issuer: str | None
    """The issuer identifier of the authorization server, as ``iss`` in tokens has it. The gateway tells it to clients
    (RFC 9728).
    """
    issuers: Sequence[IssuerConfig | IssuerFields]
    """Further authorization servers for ``jwt``, see :class:`IssuerConfig`. The keys of the issuer that a token names
    verify it. Rules and limits with ``claims`` or ``scopes`` hold for the tokens of all issuers, unless ``claims``
    names ``iss`` as well.
    """
    ca_file: str | None
    """The certificates to trust for authorization servers in place of those of the system: a PEM file, or a directory
    of such files.
    """
    audience: SequenceNotStr[str]
    """The audiences (``aud``) to accept in tokens (RFC 8707); a token needs one of them. Default: ``resource``, or the
    URL of the endpoint.
    """
    resource: str | None
    """The public URL of the gateway, such as ``https://gateway.example.com``. Its endpoints are below it. Default: as
    the header ``Host`` says.
    """
    jwks_url: str | None
    """The URL of the signing keys of the issuer. Default: from the metadata of the issuer."""
    algorithms: SequenceNotStr[str]
    """The signature algorithms to accept. Default: ``('RS256', 'PS256', 'ES256', 'ES384', 'EdDSA', 'Ed25519')``."""
    leeway_s: float
    """The largest difference between the clocks of the gateway and the issuer, in seconds. Default: ``30.0``."""
    principal_claim: str
    """The claim with the name of the principal. Default: ``sub``."""
    scopes: SequenceNotStr[str]
    """The scopes that every token needs. API keys do not need them."""
    introspection_endpoint: str | None
    """The URL to look up tokens at. Default: from the metadata of the issuer."""
    client_id: str | None
    """The credentials of the gateway at the introspection endpoint."""
    client_secret: str | None
    """The credentials of the gateway at the introspection endpoint."""
    operators: SequenceNotStr[str]
    """The principals, as names or glob patterns, that may read ``/metrics`` and the reasons why the gateway is not
    ready. Default: all; once there are rules in ``allow``, nobody. If ``serve.admin`` has no token, the principals
    named here may also use the admin API.
    """
    cache_s: float
    """How long the gateway uses the answer about a token again, in seconds; 0 asks for each request. Default: ``60.0``.
    """


class ClientLimitFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ClientLimitConfig`, as keyword arguments or as a mapping."""

    principals: SequenceNotStr[str]
    """Names of principals, or glob patterns. Default: all."""
    claims: Mapping[str, str | SequenceNotStr[str]]
    """As for :class:`AllowConfig`."""
    views: SequenceNotStr[str]
    """The limit counts only requests at these views. Default: all requests."""
    tools: SequenceNotStr[str]
    """The limit counts only calls of these tools: ``{server}__{tool}``, or glob patterns. Default: all requests."""
    rate: float
    """The average number of requests per second of each principal; 0 sets no limit. Default: ``0.0``."""
    burst: int
    """How many requests may come at once after a pause. Default: ``1``."""
    max_concurrent: int
    """How many requests of each principal may run at a time; 0 sets no limit. Default: ``0``."""
    max_streams: int
    """How many streams of each principal may be open at a time; 0 sets no limit. Default: ``0``."""
