"""The configuration of one server and of the manager, as frozen structs whose ``repr`` masks credentials."""

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
    """Configure how requests to an HTTP server are authenticated.

    Parameters
    ----------
    type
        ``none``; ``api_key``, which sends ``<header>: <key>``; ``bearer``, which sends
        ``Authorization: Bearer <token>`` (RFC 6750, section 2.1); or ``oauth``, which obtains and renews tokens as MCP
        prescribes (2026-07-28, basic/authorization). The fields after ``header`` apply to ``oauth`` only.
    key
        The secret of ``api_key``: visible ASCII, inner spaces allowed.
    token
        The secret of ``bearer``, without the word "Bearer".
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
        """Leave out the ``oauth`` fields that have their default values."""
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
    """Configure when an instance's circuit breaker opens and how it closes again.

    It opens when ``consecutive_failures`` calls in a row failed, or when at least ``min_calls`` calls ended within
    ``window_s`` and the share that failed reaches ``failure_rate`` or the share that was slow reaches ``slow_rate``.

    Parameters
    ----------
    enabled
        ``False`` turns the breaker off: it lets every call pass.
    window_s
        Length of the sliding window in seconds, above 0.
    min_calls
        Below this number of calls in the window, neither rate opens the circuit.
    failure_rate, slow_rate
        Shares of calls, above 0 and at most 1.
    consecutive_failures
        Failures in a row that open the circuit.
    slow_call_s
        Duration in seconds from which a call counts as slow; 0 turns this off.
    open_s, open_max_s
        Seconds the circuit stays open the first time. The time doubles with every trip, up to ``open_max_s``.
    jitter
        Random spread of the open time, from 0 to below 1: 0.2 is ±20 %.
    trip_decay_s
        Seconds of closed circuit that undo one doubling.
    half_open_permits
        Trial calls allowed at a time while the circuit is half-open.
    half_open_successes
        Trial calls that must succeed before the circuit closes.
    probe_ttl_s
        Seconds after which an unanswered trial call counts as failed.
    active_first
        Reserve the first trial call for a health probe, for up to ``probe_grace_s`` seconds.
    probe_grace_s
        See ``active_first``.
    timeout_floor_s
        A timeout after less than this many seconds does not count against the server: the caller's deadline was short.
    rpc_errors
        Codes of JSON-RPC errors that count as failures of the server, at most 64, such as ``(-32603,)``. Empty by
        default: a server that answers is alive, and many servers answer one caller's bad arguments with -32603.
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
    """Configure how often a server is probed and how many results change its state.

    Parameters
    ----------
    enabled
        ``False`` sends no probes: calls alone decide the state.
    interval_s
        Seconds between probes of a healthy instance.
    unhealthy_interval_s, unhealthy_interval_max_s
        Seconds before the next probe of an unhealthy instance, doubling up to the maximum.
    timeout_s
        Seconds a probe may take. If a probe times out while calls are answered, the instance is only slow: the next
        probes get twice the time each, up to the server's ``request_timeout_s``, and the server is Degraded
        (``slow probe``) meanwhile.
    fall, rise
        Failed probes in a row, without an answered call in between, that make an instance unhealthy, and successful
        probes in a row that make it healthy again. Any answer counts as a success, even an error; only refused
        credentials do not.
    jitter
        Random spread of the intervals, from 0 to below 1: 0.1 is ±10 %.
    idle_interval_s
        Seconds between probes of a healthy instance that received no call since the last probe; ``None`` for twice
        ``interval_s``.
    slow_factor, slow_floor_s
        A server is Degraded (``slow``) while the p95 of its calls in the last minute exceeds both ``slow_factor`` times
        its average over about ten minutes and ``slow_floor_s`` seconds.
    settle_s
        Seconds without a problem before a server that was Unhealthy or Degraded is shown as Healthy; until then it is
        Degraded. A worse state is shown at once. A server that was new, or Degraded only because an instance drained,
        becomes Healthy at once.
    outliers
        Eject instances whose calls fail much more often than those of the others: success rate more than 1.9 standard
        deviations below the mean, among at least five instances with at least 100 calls each within
        ``breaker.window_s``. The check runs every 10 s. An ejection lasts 30 s times the number of ejections in a row,
        at most 300 s.
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
        """``idle_interval_s``, or its default of twice ``interval_s``."""
        return self.idle_interval_s if self.idle_interval_s is not None else 2 * self.interval_s


class RestartConfig(Settings, frozen=True, kw_only=True):
    """Configure the backoff before a child process is restarted or a lost connection is opened again.

    Parameters
    ----------
    initial_s, max_s
        Seconds before the first attempt. The delay doubles with every failure up to ``max_s``; attempts never stop.
    jitter
        Random spread of the delay, from 0 to below 1: 0.2 is ±20 %.
    stable_after_s
        Seconds a process or connection must last for the delay to start over from ``initial_s``.
    on_hang
        Kill a child process that hangs, together with everything it started, and restart it. A process hangs if it left
        ``health.fall`` probes in a row unanswered while no call to it was within its deadline. Any message on its
        standard output is a sign of life; output on its standard error is not.
    """

    initial_s: PositiveSeconds = 1.0
    max_s: PositiveSeconds = 60.0
    jitter: Jitter = 0.2
    stable_after_s: PositiveSeconds = 30.0
    on_hang: bool = True


class ServerConfig(Settings, frozen=True, kw_only=True):
    """Describe one MCP server: where it is, how to call it, and how to keep it alive.

    Give exactly one of ``url`` and ``command``. The constructor checks nothing;
    :func:`~mcp_manager.config.check_server_config` does.

    Parameters
    ----------
    name
        Display name. Default: the server id.
    server_type
        Free text that groups servers; a :class:`~mcp_manager.Selector` can match it.
    url
        An ``http`` or ``https`` URL without user name, password and fragment; or a template with ``{i}`` (zero-padded:
        ``{i:02d}``), which becomes 0, 1, … for the instances; or one URL per instance.
    command, args, cwd
        The program of a stdio server (never run through a shell), its arguments and its working directory.
    env
        Environment variables for the child process, by name.
    inherit_env
        Names of variables to pass on from this process, in addition to the few harmless ones that every child gets
        (``PATH``, ``HOME``, ``LANG`` and the like).
    transport
        Set automatically: ``stdio`` with a ``command``, else ``http``. A configuration may name it, as ``transport`` or
        ``type``. ``sse`` is HTTP+SSE, the transport of 2024-11-05; ``http`` falls back to it by itself.
    protocol_version
        ``auto`` detects what the server speaks. ``stateless`` and ``handshake`` allow only the revisions without or
        with a handshake, the newest first. A revision such as ``2025-06-18`` allows only that one.
    auth
        See :class:`AuthConfig`. A stdio server takes its credentials through ``env``.
    headers
        Header fields to send with every HTTP request, by name.
    tls
        See :class:`TlsConfig`.
    proxy
        The proxy to an HTTP server: an ``http://`` or ``https://`` URL, with user and password if the proxy needs them;
        ``env`` to use ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in lower or upper case; ``""``
        for no proxy. The default is ``env``, except for this machine's own addresses (``localhost``, 127.0.0.0/8,
        ``[::1]``) and together with ``discovery`` or ``unix_socket``. ``https`` requests go through a tunnel
        (``CONNECT``). ``tls`` applies to an ``https://`` proxy too. The proxy resolves names, so it alone can refuse
        those that resolve to a link-local or multicast address.
    unix_socket
        The path of a unix socket to connect to instead of the host in ``url``; ``url`` still supplies the ``Host``
        header and the path. As ``url``, ``http+unix://%2Frun%2Fserver.sock/mcp`` sets both.
    priority
        0 to 255; servers with a higher priority are preferred.
    tags
        Words to select servers by.
    instances
        How many instances to run, from 0 to 10,000; 0 suspends the server. Default: one per URL of a list,
        ``max_instances`` with ``discovery``, else 1.
    max_instances
        The most instances that scaling may request, from 1 to 10,000.
    connect
        ``eager`` connects and probes on deployment; ``lazy`` does so with the first call or the first wait for
        readiness.
    connect_timeout_s
        Seconds for connecting, handshake and first probe together. ``deploy()``, ``start()``, ``apply()`` and
        ``scale()`` wait no longer than this in total; a program may continue to start afterwards.
    start_timeout_s
        Seconds a program may take from its start to the end of the handshake. A program that exits fails at once. After
        every start that timed out, the limit doubles, up to ten times its value, until a start succeeds. Over HTTP: how
        long a late answer to a handshake still counts, while further attempts are made.
    request_timeout_s
        Seconds a call may take if the caller gives no timeout.
    shutdown_grace_s
        Seconds a session or child process has to end by itself; 0 ends it at once.
    drain_timeout_s
        Seconds the calls of an instance that is scaled down or replaced may still take; then it ends and they fail.
    max_response_bytes
        The largest reply to accept, in bytes, at least 1,024.
    max_response_values
        The most JSON values in a result that is decoded (``call_tool``, ``list_tools``, ``request`` and the like), at
        least 1,000. Members, objects and arrays count as two, long numbers as more. Default: one per 48 bytes of
        ``max_response_bytes``, at most 300,000. Decoding blocks the event loop, so this bounds for how long.
    cache
        Cache results for as long as the server declares them valid. Only servers of 2026-07-28 or later do.
    validate_output
        Check what a tool returns against the output schema in its listing.
    breaker, health, restart
        See :class:`BreakerConfig`, :class:`HealthConfig` and :class:`RestartConfig`.
    balancing, discovery, retry, hedge, fallback, limits
        See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
        :class:`FallbackConfig` and :class:`LimitsConfig`.
    hidden_texts
        Additional texts to mask in every error, log, view and snapshot; texts shorter than four characters are ignored.
        Values that ``${VAR}`` inserted from the environment are added automatically, except very short ones. Keys,
        tokens, headers, ``env`` and the like are always masked.
    extras
        Unknown fields of a client's configuration file, kept unchanged and never interpreted.
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
            # The constructor checks nothing, so this may be anything; the full check reports it.
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
            yields no valid URL.
        """
        return expand_template(self.url, index)

    @property
    def url_limit(self) -> int | None:
        """How many instances the URLs allow: the length of a list, else ``None`` (no limit)."""
        return len(self.url) if isinstance(self.url, tuple) else None

    @property
    def has_url_template(self) -> bool:
        """Whether ``url`` is a template, so that every instance has its own endpoint."""
        return isinstance(self.url, str) and is_template(self.url)


class ManagerConfig(Settings, frozen=True, kw_only=True):
    """Configure a manager and the servers that it deploys when it starts.

    Parameters
    ----------
    servers
        Server configurations by server id.
    max_connections
        The most HTTP connections at a time, over all servers; 0 sets no limit. Open event streams are counted
        separately, up to the same number. Default: about half of the file descriptors that the process may have, from
        16 to 10,000. Further calls wait in order until their deadlines.
    max_connections_per_origin
        The most connections to one scheme, host and port; 0 sets no limit. A call keeps its connection until its reply
        is complete, so this also bounds the calls in flight to an origin.
    http_lanes
        Speak HTTP in compiled code on the connections that aiohttp opens. ``False`` sends every call as a plain aiohttp
        request: same results, several times the cost.
    connect_concurrency, probe_concurrency
        How many servers are connected over HTTP, and how many are probed, at a time.
    start_concurrency
        How many programs are started at a time; 0 for sixteen per core. A program that only waits, for example for a
        download, does not count. Starts for calls come first, then first starts, then restarts. Programs whose last
        start failed have separate slots.
    shutdown_timeout_s
        Seconds ``stop()`` may take; then it ends by force whatever is left.
    handler_timeout_s
        Seconds a handler may take to answer a server's request, such as a question to the user; then the server gets an
        error.
    max_concurrent, max_waiting, max_wait_s
        The most calls in flight at a time, over all servers; 0 sets no limit. Up to ``max_waiting`` further calls wait
        in order, each for up to ``max_wait_s`` seconds.
    retry_budget
        The budget for retries and hedges of all servers together; the budget of each server applies as well.
    flight_records
        How many of the latest calls to keep detailed records of; 0 keeps none.
    client_name, client_version
        How the manager identifies itself in the MCP handshake and in ``User-Agent``: 1 to 256 printable ASCII
        characters.
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
