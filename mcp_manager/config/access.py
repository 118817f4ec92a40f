"""The configuration of access to the gateway: who clients are, what they may use, and how much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Count, Seconds, Settings
from mcp_manager.config.issuers import IssuerConfig
from mcp_manager.config.rates import PerSecond
from mcp_manager.config.tools import ToolPatterns

if TYPE_CHECKING:
    from mcp_manager.config.fields.access import AllowFields, ClientAuthFields, ClientLimitFields

__all__ = ["AllowConfig", "ClientAuthConfig", "ClientLimitConfig"]

_Text = Annotated[str, Meta(min_length=1, max_length=512)]
_Texts = Annotated[tuple[_Text, ...], Meta(max_length=1000)]
_Claims = Annotated[dict[_Text, str | tuple[str, ...]], Meta(max_length=100)]


class ClientAuthConfig(Settings, frozen=True, kw_only=True):
    """Configure how clients of the gateway authenticate.

    A key or token comes as ``Authorization: Bearer``, a key also as ``X-API-Key``. The principal of a key has its name;
    that of a token is ``ISSUER#NAME``.

    Parameters
    ----------
    type
        ``none``; ``api_key``, a key of ``keys_file``; ``jwt``, a signed token of ``issuer`` (RFC 9068); or
        ``introspection``, a token that the gateway looks up at the authorization server (RFC 7662).
    keys_file
        The file with the names and hashes of API keys. ``mcp-manager key`` writes it, and the gateway follows
        its changes. With ``jwt`` or ``introspection``, the gateway accepts these keys as well.
    issuer
        The issuer identifier of the authorization server, as ``iss`` in tokens has it. The gateway tells it to
        clients (RFC 9728).
    issuers
        Further authorization servers for ``jwt``, see :class:`IssuerConfig`. The keys of the issuer that a
        token names verify it. Rules and limits with ``claims`` or ``scopes`` hold for the tokens of all
        issuers, unless ``claims`` names ``iss`` as well.
    ca_file
        The certificates to trust for authorization servers in place of those of the system: a PEM file, or a
        directory of such files.
    audience
        The audiences (``aud``) to accept in tokens (RFC 8707); a token needs one of them. Default:
        ``resource``, or the URL of the endpoint.
    resource
        The public URL of the gateway, such as ``https://gateway.example.com``. Its endpoints are below it.
        Default: as the header ``Host`` says.
    jwks_url
        The URL of the signing keys of the issuer. Default: from the metadata of the issuer.
    algorithms
        The signature algorithms to accept.
    leeway_s
        The largest difference between the clocks of the gateway and the issuer, in seconds.
    principal_claim
        The claim with the name of the principal.
    scopes
        The scopes that every token needs. API keys do not need them.
    introspection_endpoint
        The URL to look up tokens at. Default: from the metadata of the issuer.
    client_id, client_secret
        The credentials of the gateway at the introspection endpoint.
    operators
        The principals, as names or glob patterns, that may read ``/metrics`` and the reasons why the gateway is
        not ready. Default: all; once there are rules in ``allow``, nobody. If ``serve.admin`` has no token, the
        principals named here may also use the admin API.
    cache_s
        How long the gateway uses the answer about a token again, in seconds; 0 asks for each request.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ClientAuthFields]) -> None: ...

    type: Literal["none", "api_key", "jwt", "introspection"] = "none"
    keys_file: str | None = None
    issuer: str | None = None
    issuers: Annotated[tuple[IssuerConfig, ...], Meta(max_length=100)] = ()
    ca_file: str | None = None
    audience: _Texts = ()
    resource: str | None = None
    jwks_url: str | None = None
    algorithms: _Texts = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
    leeway_s: Seconds = 30.0
    principal_claim: str = "sub"
    scopes: _Texts = ()
    introspection_endpoint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    operators: _Texts = ()
    cache_s: Seconds = 60.0


class AllowConfig(Settings, frozen=True, kw_only=True):
    """Allow some principals the use of some things; without any such rule, everybody may use everything.

    A principal must be in ``principals`` and have the ``claims`` and ``scopes``, as far as they are given. It may use
    what any of its rules allows, and sees nothing else in lists.

    Parameters
    ----------
    principals
        Names of principals, or glob patterns. The name for a token begins with its issuer:
        ``https://idp.example.com#alice``.
    claims
        The claims that the principal needs, each with a value or a list of values; one of the values must
        match. If the claim of the token is a list, or the words of ``scope``, one entry must match.
        ``realm_access.roles`` is a claim inside a claim.
    scopes
        The scopes that the principal needs, all of them.
    views
        The views where the rule holds; ``*`` stands for all views and ``/mcp``. Default: all endpoints that
        show the servers.
    servers
        The ids of servers, or glob patterns. Default: all.
    tools, prompts, resources
        Names or glob patterns: ``{server}__{name}`` for tools and prompts, URIs for resources. Without any of
        these three fields, the rule allows everything of its servers. With one of them, it allows nothing of
        the other two kinds. A resource template, given as it is, allows all URIs that match it. No pattern
        matches a URI with ``..`` in its path.
    methods
        Methods of requests, or glob patterns such as ``resources/*``. Default: all. Requests that introduce a
        server or list what is allowed need no rule.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[AllowFields]) -> None: ...

    principals: _Texts = ()
    claims: _Claims = {}
    scopes: _Texts = ()
    views: _Texts = ()
    servers: _Texts = ()
    tools: ToolPatterns = ()
    prompts: ToolPatterns = ()
    resources: _Texts = ()
    methods: _Texts = ()


class ClientLimitConfig(Settings, frozen=True, kw_only=True):
    """Bound what each principal uses; a request needs room in every limit that applies to it.

    Parameters
    ----------
    principals
        Names of principals, or glob patterns. Default: all.
    claims
        As for :class:`AllowConfig`.
    views
        The limit counts only requests at these views. Default: all requests.
    tools
        The limit counts only calls of these tools: ``{server}__{tool}``, or glob patterns. Default: all
        requests.
    rate
        The average number of requests per second of each principal; 0 sets no limit.
    burst
        How many requests may come at once after a pause.
    max_concurrent
        How many requests of each principal may run at a time; 0 sets no limit.
    max_streams
        How many streams of each principal may be open at a time; 0 sets no limit.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ClientLimitFields]) -> None: ...

    principals: _Texts = ()
    claims: _Claims = {}
    views: _Texts = ()
    tools: ToolPatterns = ()
    rate: PerSecond = 0.0
    burst: Count = 1
    max_concurrent: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    max_streams: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
