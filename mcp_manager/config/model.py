"""The settings of one server and of the manager, as frozen structs whose ``repr`` shows no credential."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from mcp_manager._version import __version__
from mcp_manager.config._struct import Count, Jitter, PositiveSeconds, Rate, RpcCode, Seconds, Settings
from mcp_manager.config._url import expand_template, is_template
from mcp_manager.config.network import TlsConfig
from mcp_manager.config.resilience import (
    BalancingConfig,
    DiscoveryConfig,
    FallbackConfig,
    HedgeConfig,
    LimitsConfig,
    RetryBudgetConfig,
    RetryConfig,
)

__all__ = [
    "AuthConfig",
    "BreakerConfig",
    "HealthConfig",
    "ManagerConfig",
    "RestartConfig",
    "ServerConfig",
]

_ONE_PER_URL: Final = -1


class AuthConfig(Settings, frozen=True, kw_only=True):
    """How requests to an HTTP server are authenticated.

    Parameters
    ----------
    type
        ``none``; ``api_key``, which sends ``<header>: <key>``; ``bearer``, which sends
        ``Authorization: Bearer <token>`` (RFC 6750, section 2.1); or ``oauth``, which obtains and renews tokens as the
        server and its authorization server ask for (2026-07-28, basic/authorization). Everything below ``header`` is for
        ``oauth`` alone.
    key
        The secret of ``api_key``: visible ASCII, inner spaces allowed.
    token
        The secret of ``bearer``, without the word "Bearer".
    header
        The header that carries ``key``; only for ``api_key``.
    grant
        How tokens are obtained: ``authorization_code`` asks a user; ``client_credentials`` acts for the client itself;
        ``jwt_bearer`` presents ``assertion``, the identity of a workload (RFC 7523); ``enterprise`` exchanges
        ``assertion``, a user's ID token, at the company's identity provider first (RFC 8693, ID-JAG).
    client_id, client_secret
        The client as it is registered with the authorization server; without them, it introduces itself.
    issuer
        The issuer identifier of the authorization server that ``client_id`` is registered with: with another one,
        authorizing fails.
    authorization_endpoint, token_endpoint
        Where the authorization server is asked, if it publishes no metadata, as GitHub does not; needs ``client_id``.
    client_auth
        How a secret is sent, ``client_secret`` or the one that a client gets that introduces itself; by default as the
        authorization server's metadata, or its reply to the registration, says.
    client_metadata_url
        An https URL with the client's metadata, used as its id where authorization servers support that.
    private_key, private_key_id, signing_algorithm
        A PEM key by which the client proves who it is in place of a secret (``private_key_jwt``); needs the extra
        ``oauth``.
    scopes
        The scopes to ask for where the server does not say which it needs.
    send_resource
        Tell the authorization server what the tokens are for (RFC 8707), as MCP demands; Microsoft Entra ID refuses it.
    assume_pkce
        Go on where the authorization server's metadata does not say whether it checks PKCE, which MCP forbids: that of
        Microsoft Entra ID does not, and it does. PKCE is sent in any case.
    allow_private_addresses
        Let a server that is not on a private network name an authorization server that is. Those that ``issuer`` and the
        endpoints name are allowed in any case.
    parameters
        More parameters of the request that begins a grant, such as ``audience`` for Auth0.
    redirect_uri
        Where the user is sent back to: what the redirect handler listens on.
    authorization_timeout_s
        Seconds a user may take to agree.
    assertion, assertion_file
        The assertion itself, or a file that has it and is read each time.
    idp_token_endpoint, idp_client_id, idp_client_secret
        The identity provider of ``enterprise``, and the client there.
    dpop
        Bind tokens to a key, and prove with every request that it is held (RFC 9449); needs the extra ``oauth``.
    """

    type: Literal["none", "api_key", "bearer", "oauth"] = "none"
    key: str | None = None
    token: str | None = None
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
        """Leave out what concerns ``oauth`` alone and was not set."""
        always = ("type", "key", "token", "header")
        fields = super().__rich_repr__()
        unset = AuthConfig()
        return [(name, value) for name, value in fields if name in always or value != getattr(unset, name)]

    def request_header(self) -> tuple[str, str] | None:
        """Return the name and value of the header to send, or ``None`` for type ``none``. The value is a secret."""
        if self.type == "api_key":
            return self.header, self.key or ""
        if self.type == "bearer":
            return "Authorization", f"Bearer {self.token or ''}"
        return None


class BreakerConfig(Settings, frozen=True, kw_only=True):
    """When an instance's circuit breaker opens, and how it closes again.

    It opens when ``consecutive_failures`` calls in a row failed, or when at least ``min_calls`` calls ended within
    ``window_s`` and the share that failed reaches ``failure_rate`` or the share that was slow reaches ``slow_rate``.

    Parameters
    ----------
    enabled
        ``False`` lets every call pass and opens never.
    window_s
        Length of the sliding window in seconds.
    min_calls
        Calls in the window below which rates decide nothing.
    failure_rate, slow_rate
        Shares of calls in (0, 1].
    consecutive_failures
        Failures in a row that open the circuit.
    slow_call_s
        Duration in seconds from which a call is slow; 0 turns slowness off.
    open_s, open_max_s
        How long the circuit stays open the first time, in seconds, doubling with every trip up to ``open_max_s``.
    jitter
        Spread of the open time, 0.2 for ±20 %.
    trip_decay_s
        Seconds of closed circuit that forgive one doubling.
    half_open_permits
        Trial calls at a time while half open.
    half_open_successes
        Trial calls that must succeed before the circuit closes.
    probe_ttl_s
        Seconds after which an unanswered trial call counts as failed.
    active_first
        Let a health probe be the first trial call for up to ``probe_grace_s`` seconds, rather than a caller's request.
    timeout_floor_s
        A call that timed out in less than this many seconds says nothing about the server.
    rpc_errors
        The codes of JSON-RPC errors that count as failures of the server, at most 64, such as ``(-32603,)``. None by
        default: an answer is a sign of life, and many servers answer one caller's bad arguments with -32603.
    """

    enabled: bool = True
    window_s: PositiveSeconds = 10.0
    min_calls: Count = 20
    failure_rate: Rate = 0.5
    consecutive_failures: Count = 5
    slow_call_s: Seconds = 0.0
    slow_rate: Rate = 0.8
    open_s: PositiveSeconds = 5.0
    open_max_s: PositiveSeconds = 300.0
    jitter: Jitter = 0.2
    trip_decay_s: PositiveSeconds = 30.0
    half_open_permits: Count = 1
    half_open_successes: Count = 2
    probe_ttl_s: PositiveSeconds = 30.0
    active_first: bool = True
    probe_grace_s: Seconds = 2.0
    timeout_floor_s: Seconds = 1.0
    rpc_errors: Annotated[tuple[RpcCode, ...], Meta(max_length=64)] = ()


class HealthConfig(Settings, frozen=True, kw_only=True):
    """How often a server is probed, and how many results change its state.

    Parameters
    ----------
    enabled
        ``False`` leaves the state to the calls alone.
    interval_s
        Seconds between probes of a healthy server.
    unhealthy_interval_s, unhealthy_interval_max_s
        Seconds before the next probe of an unhealthy one, doubling up to the maximum.
    timeout_s
        Seconds a probe may take. One that takes longer while calls are answered is no sign of death: the next ones are
        given twice the time, up to ``request_timeout_s`` of the server, and it is Degraded (``slow probe``) meanwhile.
    fall, rise
        Failed probes in a row, without an answered call since, that make a server unhealthy; successful ones that make
        it healthy again. Whatever a probe is answered, an error included, but for refused credentials, is a success.
    jitter
        Spread of the intervals, 0.1 for ±10 %.
    idle_interval_s
        Seconds between probes of a healthy server that no call went to since the last one; ``None`` for twice
        ``interval_s``.
    slow_factor, slow_floor_s
        A server is Degraded while the p95 of its latest calls exceeds ``slow_factor`` times what it has long been, and
        ``slow_floor_s`` seconds.
    settle_s
        Seconds for which a server that was Unhealthy or Degraded must be well before it is shown as Healthy; until then
        it is Degraded, worse is shown at once, and what only drained, or was new, is Healthy at once.
    outliers
        Take instances out of traffic whose calls fail much more often than those of the others: below the mean success
        rate by 1.9 standard deviations, among at least five instances with at least 100 calls within
        ``breaker.window_s``. They are sought every 10 s, and stay out for 30 s times the times in a row, 300 s at most.
    """

    enabled: bool = True
    interval_s: PositiveSeconds = 30.0
    unhealthy_interval_s: PositiveSeconds = 5.0
    unhealthy_interval_max_s: PositiveSeconds = 60.0
    timeout_s: PositiveSeconds = 5.0
    fall: Count = 3
    rise: Count = 2
    jitter: Jitter = 0.1
    idle_interval_s: PositiveSeconds | None = None
    slow_factor: Annotated[float, Meta(gt=1.0, le=1e6)] = 3.0
    slow_floor_s: Seconds = 0.1
    settle_s: Seconds = 10.0
    outliers: bool = False

    @property
    def idle_s(self) -> float:
        """``idle_interval_s``, or what stands for it."""
        return self.idle_interval_s if self.idle_interval_s is not None else 2 * self.interval_s


class RestartConfig(Settings, frozen=True, kw_only=True):
    """How long to wait before a child process is started again, or a lost connection made anew.

    Parameters
    ----------
    initial_s, max_s
        Seconds before the first attempt, doubling with every failure up to ``max_s``. There is no last attempt.
    jitter
        Spread of the delay, 0.2 for ±20 %.
    stable_after_s
        Seconds a process or connection must last for the delay to start over from ``initial_s``.
    on_hang
        Kill a child process that hangs, with all it has started, and start it again: one that has left ``health.fall``
        probes in a row unanswered, while no call on it is within its deadline. A busy program is not a dead one: any
        message that it writes is a sign of life. What it writes to its standard error is none. ``False`` leaves it be.
    """

    initial_s: PositiveSeconds = 1.0
    max_s: PositiveSeconds = 60.0
    jitter: Jitter = 0.2
    stable_after_s: PositiveSeconds = 30.0
    on_hang: bool = True


class ServerConfig(Settings, frozen=True, kw_only=True):
    """One MCP server: where it is, how to speak to it, and how it is kept alive.

    Exactly one of ``url`` and ``command`` is given. Building this struct by hand checks nothing;
    :func:`~mcp_manager.config.check_server_config` does.

    Parameters
    ----------
    name
        Display name; empty stands for the server id.
    server_type
        Free text by which servers are grouped.
    url
        An ``http`` or ``https`` URL; or one with ``{i}`` (zero-padded: ``{i:02d}``), which becomes 0, 1, … for the
        instances; or one URL per instance. Without user name, password and fragment.
    command, args, cwd
        The program of a stdio server (never run through a shell), its arguments and its working directory.
    env
        Environment variables for the child process, by name.
    inherit_env
        Names of variables to pass on from this process, beside the safe ones that are always passed on.
    transport
        ``stdio`` with a ``command``, else ``http``. A configuration may name it, as ``transport`` or ``type``. ``sse``
        is HTTP+SSE, the transport of 2024-11-05, which ``http`` falls back to by itself.
    protocol_version
        ``auto`` finds out what the server speaks; ``stateless`` and ``handshake`` take the newest revision of that era
        alone, and a revision such as ``2025-06-18`` that one.
    auth
        See :class:`AuthConfig`. A stdio server takes its credentials through ``env``.
    headers
        Header fields to send with every HTTP request, by name.
    tls
        See :class:`TlsConfig`.
    proxy
        The proxy to an HTTP server: an ``http://`` or ``https://`` URL, with user and password if it wants them;
        ``env`` for what ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` say, in lower or upper case; ``""``
        for none, whatever the environment says. By default as ``env``, but never for this machine's own addresses
        (``localhost``, 127.0.0.0/8, ``[::1]``), and not together with ``discovery`` or ``unix_socket``. ``https`` goes through
        a tunnel (``CONNECT``), and an ``https://`` proxy is spoken to with ``tls`` as well. The proxy looks names up: that they
        lead to no link-local or multicast address is then the proxy's to see.
    unix_socket
        The path of a unix socket to speak HTTP on, in place of the connection to the host in ``url``, which still
        says what ``Host`` and path of requests are. ``http+unix://%2Frun%2Fserver.sock/mcp`` as ``url`` says both.
    priority
        0 to 255; servers of a higher one are preferred.
    tags
        Free words to select servers by.
    instances
        How many instances to run: 0 keeps the server suspended. Default: one per URL of a list,
        ``max_instances`` where they are discovered, else 1.
    max_instances
        The most that scaling may ask for.
    connect
        ``eager`` connects and probes on deployment, ``lazy`` with the first call, or for whoever waits for readiness.
    connect_timeout_s
        Seconds for connecting, handshake and first probe together; also how long ``deploy()``, ``start()``, ``apply()``
        and ``scale()`` wait for that, in all. A program may go on starting meanwhile.
    start_timeout_s
        Seconds a program may take from its start to the end of the handshake. One that lives is not ended before, one
        that ends fails at once. After every start that ran out there is twice as much time, up to ten times as much,
        until one succeeds. Over HTTP, how long the answer to a handshake is waited for beside further attempts.
    request_timeout_s
        Seconds a call may take if its caller names no other limit.
    shutdown_grace_s
        Seconds a session or child process is given to end by itself.
    drain_timeout_s
        Seconds the calls of an instance that is scaled down or replaced may still take; then it is ended under them.
    max_response_bytes
        Size in bytes above which a reply is refused.
    max_response_values
        How many values a result may have that is decoded (``call_tool``, ``list_tools``, ``request`` and the like): members
        count as two, objects and arrays as two, numbers of many digits as more. By default one for every 48 bytes of
        ``max_response_bytes``, 300,000 at most: while a result is decoded, nothing else happens.
    cache
        Keep results for as long as a server of 2026-07-28 or later says that they hold. Earlier ones do not say.
    validate_output
        Check what a tool returns against the output schema that it was listed with.
    breaker, health, restart
        See :class:`BreakerConfig`, :class:`HealthConfig` and :class:`RestartConfig`.
    balancing, discovery, retry, hedge, fallback, limits
        See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
        :class:`FallbackConfig` and :class:`LimitsConfig`.
    hidden_texts
        More texts that no error, log, view or snapshot is to show, of at least four characters each. What ``${VAR}`` stood
        for in a file is among them, wherever it was filled in; keys, tokens, headers, ``env`` and the like are masked in
        any case.
    extras
        Foreign fields of a client's configuration file, kept as they were and never interpreted.
    """

    name: str = ""
    server_type: str = "mcp"
    url: str | tuple[str, ...] | None = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    inherit_env: tuple[str, ...] = ()
    transport: Literal["http", "sse", "stdio"] = "http"
    protocol_version: Literal[
        "auto", "stateless", "handshake", "2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"
    ] = "auto"
    auth: AuthConfig = AuthConfig()
    headers: dict[str, str] = {}
    tls: TlsConfig = TlsConfig()
    proxy: str | None = None
    unix_socket: str | None = None
    priority: Annotated[int, Meta(ge=0, le=255)] = 0
    tags: tuple[str, ...] = ()
    instances: Annotated[int, Meta(ge=_ONE_PER_URL, le=10_000)] = _ONE_PER_URL
    max_instances: Annotated[int, Meta(ge=1, le=10_000)] = 64
    connect: Literal["eager", "lazy"] = "eager"
    connect_timeout_s: PositiveSeconds = 5.0
    start_timeout_s: PositiveSeconds = 60.0
    request_timeout_s: PositiveSeconds = 60.0
    shutdown_grace_s: Seconds = 2.0
    drain_timeout_s: Seconds = 30.0
    max_response_bytes: Annotated[int, Meta(ge=1024, le=2**40)] = 16 * 1024 * 1024
    max_response_values: Annotated[int, Meta(ge=1000, le=2**40)] | None = None
    cache: bool = True
    validate_output: bool = True
    breaker: BreakerConfig = BreakerConfig()
    health: HealthConfig = HealthConfig()
    restart: RestartConfig = RestartConfig()
    balancing: BalancingConfig = BalancingConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    retry: RetryConfig = RetryConfig()
    hedge: HedgeConfig = HedgeConfig()
    fallback: FallbackConfig = FallbackConfig()
    limits: LimitsConfig = LimitsConfig()
    hidden_texts: tuple[str, ...] = ()
    extras: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.command is not None:
            msgspec.structs.force_setattr(self, "transport", "stdio")
        if self.instances == _ONE_PER_URL:
            count = len(self.url) if isinstance(self.url, tuple) else 1
            # What is no section is found out by the full check.
            discovers = isinstance(self.discovery, DiscoveryConfig) and self.discovery.kind != "none"
            if discovers and isinstance(self.url, str):
                count = self.max_instances
            msgspec.structs.force_setattr(self, "instances", count)

    def instance_url(self, index: int) -> str:
        """Return the URL of instance ``index``, counted from 0, with a template filled in.

        Raises
        ------
        ConfigError
            The server has no URL for that instance: it is a stdio server, its list is shorter, or its template
            does not give a valid URL.
        """
        return expand_template(self.url, index)

    @property
    def url_limit(self) -> int | None:
        """How many instances the URLs allow: the length of a list; ``None`` (no limit) for everything else."""
        return len(self.url) if isinstance(self.url, tuple) else None

    @property
    def has_url_template(self) -> bool:
        """Whether ``url`` is a template, so that every instance has an endpoint of its own."""
        return isinstance(self.url, str) and is_template(self.url)


class ManagerConfig(Settings, frozen=True, kw_only=True):
    """The settings of a manager, and the servers it deploys when it starts.

    Parameters
    ----------
    servers
        Server configurations by server id.
    max_connections
        The most HTTP connections at a time, over all servers; 0 sets no limit. By default, half of the descriptors that
        the process may have, since streams that stay open are counted apart, as many again. Calls above it wait in
        order for as long as their deadlines let them.
    max_connections_per_origin
        The most of them to one scheme, host and port; 0 sets no limit. A call has a connection to itself until its
        reply is whole: so many calls to an origin can be under way at a time, long ones included.
    http_lanes
        Speak HTTP in compiled code on the connections that aiohttp opens; ``False`` makes every request an ordinary
        aiohttp request, with the same results and several times the cost.
    connect_concurrency, probe_concurrency
        How many servers are connected over HTTP, and how many probed, at a time.
    start_concurrency
        How many programs are started at a time; 0 for sixteen per core. One that only waits (for a
        download, for a question to be answered) is not counted. Calls go before probes, first starts before repeated
        ones, and programs whose last start failed have places of their own.
    shutdown_timeout_s
        Seconds ``stop()`` may take before what is left is ended by force.
    handler_timeout_s
        Seconds a handler may take to answer what a server asks of the client, such as a question to the user; then the
        server is told that it failed.
    max_concurrent
        The most calls under way at a time, over all servers; 0 sets no limit. Those above it wait in order, up to
        ``max_waiting`` of them and for up to ``max_wait_s`` seconds each.
    retry_budget
        What all servers together may spend on retries and hedges, beside the budget of each.
    flight_records
        How many of the latest calls are remembered in detail; 0 remembers none.
    client_name, client_version
        What the manager calls itself in the MCP handshake and in ``User-Agent``.
    """

    servers: dict[str, ServerConfig] = {}
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    max_connections_per_origin: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    http_lanes: bool = True
    connect_concurrency: Count = 64
    start_concurrency: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    probe_concurrency: Count = 64
    shutdown_timeout_s: PositiveSeconds = 10.0
    handler_timeout_s: PositiveSeconds = 300.0
    max_concurrent: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    max_waiting: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000
    max_wait_s: Seconds = 1.0
    retry_budget: RetryBudgetConfig = RetryBudgetConfig(min_per_s=100.0)
    flight_records: Annotated[int, Meta(ge=0, le=1_000_000)] = 256
    client_name: str = "mcp-manager"
    client_version: str = __version__
