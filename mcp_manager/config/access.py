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
        ``introspection``, any token that its authorization server knows (RFC 7662).
    keys_file
        A file with the names and hashes of API keys, which ``mcp-manager key`` makes; it is read again when it changes.
        With ``jwt`` or ``introspection``, they are accepted as well.
    issuer
        The issuer identifier of the authorization server. The gateway tells it to clients (RFC 9728).
    issuers
        Further authorization servers for ``jwt``, see :class:`IssuerConfig`. A token is examined by the keys of the one
        that it names. Rules and limits with ``claims`` or ``scopes`` are for the tokens of all of them, unless ``claims``
        names ``iss`` as well.
    ca_file
        The certificates to trust for authorization servers instead of the system's, as of a private certificate
        authority: a PEM file, or a directory of such files.
    audience
        What tokens must be meant for (RFC 8707): any one of these. Default: ``resource``, or the URL of the endpoint
        that is used.
    resource
        The public URL of the gateway, such as ``https://gateway.example.com``; its endpoints are below it. Default: as
        the request says.
    jwks_url
        Where the keys of the issuer are. Default: as the issuer's metadata says.
    algorithms
        The signature algorithms that are accepted.
    leeway_s
        Seconds that the clocks may differ.
    principal_claim
        The claim that names the principal.
    scopes
        The scopes that every token needs; API keys do not need them.
    introspection_endpoint
        Where tokens are looked up. Default: as the issuer's metadata says.
    client_id, client_secret
        The credentials of the gateway at the introspection endpoint.
    operators
        Names of principals, or glob patterns, that may read ``/metrics``, and why the gateway is not ready. Default:
        all that authenticate; as soon as there are rules in ``allow``, nobody. Those who are named may also use the
        admin API, if it has no token.
    cache_s
        Seconds that the answer about a token is used again at most; 0 asks each time.
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
        Names of principals, or glob patterns. That of a token has its issuer in front: ``https://idp.example.com#alice``.
    claims
        Claims that the principal must have: a value, or several of which one is enough. A claim that is a list, or a
        text of words for ``scope``, must contain it. ``realm_access.roles`` is a claim within a claim.
    scopes
        Scopes that the principal must have, all of them.
    views
        The views; with ``*``, all views and the whole fleet. Default: wherever the servers are shown.
    servers
        The ids of servers, or glob patterns. Default: all.
    tools, prompts, resources
        Names or glob patterns, tools and prompts as ``{server}__{name}``, resources as URIs. If none of the three is
        given: all of the servers. Otherwise nothing of a kind that is not given. The text of a template of URIs stands
        for all that is made from it. No pattern matches a URI with ``..`` in its path.
    methods
        Methods of requests, or glob patterns such as ``resources/*``. Default: all. What only introduces a server or
        lists what is allowed is never forbidden.
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
        The views whose requests count. Default: all requests.
    tools
        The tools whose calls count, as ``{server}__{tool}``, or glob patterns. Default: all requests.
    rate
        Requests per second on average, of each principal; 0 sets no limit.
    burst
        Requests that may come at once after a pause.
    max_concurrent
        Requests of each principal under way at a time; 0 sets no limit.
    max_streams
        Streams of each principal that are open at a time; 0 sets no limit.
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
