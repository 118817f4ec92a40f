"""The configuration of one server, as a frozen struct whose ``repr`` masks credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Unpack

import msgspec
from msgspec import Meta

from mcp_manager.config._struct import Count, PositiveSeconds, Seconds, Settings
from mcp_manager.config._url import expand_template, is_template
from mcp_manager.config.auth import AuthConfig
from mcp_manager.config.health import BreakerConfig, HealthConfig, RestartConfig
from mcp_manager.config.resilience import (
    BalancingConfig,
    DiscoveryConfig,
    FallbackConfig,
    HedgeConfig,
    LimitsConfig,
    RetryConfig,
)
from mcp_manager.config.tls import TlsConfig
from mcp_manager.config.tools import ToolsConfig
from mcp_manager.errors import ConfigError

if TYPE_CHECKING:
    from mcp_manager.config.fields.server import ServerFields

__all__ = ["ServerConfig"]

_ONE_PER_URL: Final = -1


class ServerConfig(Settings, frozen=True, kw_only=True):
    """Describe one MCP server: where it is, how to call it, and how to keep it alive.

    Give exactly one of ``url``, ``command`` and ``server``. The constructor checks nothing;
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
    server
        A server object in memory instead of a URL or a program: one of the packages ``mcp`` or ``fastmcp``. It runs in
        this process, on the manager's loop, with one run for each instance. Only Python code can give it.
    command, args, cwd
        The program of a stdio server (never run through a shell), its arguments and its working directory.
    env
        Environment variables for the child process, by name.
    inherit_env
        Names of variables to pass on from this process, in addition to the few harmless ones that every child gets
        (``PATH``, ``HOME``, ``LANG`` and the like).
    transport
        Set automatically: ``stdio`` with a ``command``, ``memory`` with a ``server``, else ``http``. A configuration may name it, as ``transport`` or
        ``type``. ``sse`` is HTTP+SSE, the transport of 2024-11-05; ``http`` falls back to it by itself.
    protocol_version
        ``auto`` detects what the server speaks. ``stateless`` and ``handshake`` allow only the revisions without or
        with a handshake, the newest first. A revision such as ``2025-06-18`` allows only that one.
    auth
        See :class:`AuthConfig`. A stdio server takes its credentials through ``env``.
    headers
        Header fields to send with every HTTP request, by name.
    headers_command
        A program that prints further header fields as a JSON object, and its arguments; run as ``auth.token_command``.
        Its fields replace those of the same names in ``headers``.
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
    max_caller_sessions
        The most sessions to keep for callers (:class:`~mcp_manager.Caller`), from 1; above it, the one that was not
        used for longest is ended.
    caller_idle_s
        Seconds after its last call for which the session of a caller is kept.
    cache
        Cache results for as long as the server declares them valid. Only servers of 2026-07-28 or later do.
    validate_output
        Check what a tool returns against the output schema in its listing.
    breaker, health, restart
        See :class:`BreakerConfig`, :class:`HealthConfig` and :class:`RestartConfig`.
    balancing, discovery, retry, hedge, fallback, limits
        See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
        :class:`FallbackConfig` and :class:`LimitsConfig`.
    tools
        Which tools may be listed and called: see :class:`ToolsConfig`.
    hidden_texts
        Additional texts to mask in every error, log, view and snapshot; texts shorter than four characters are ignored.
        Values that ``${VAR}`` inserted from the environment are added automatically, except very short ones. Keys,
        tokens, headers, ``env`` and the like are always masked.
    extras
        Unknown fields of a client's configuration file, kept unchanged and never interpreted.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ServerFields]) -> None: ...

    _lists: ClassVar[tuple[str, ...]] = ("url",)

    name: str = ""
    server_type: str = "mcp"
    url: str | tuple[str, ...] | None = None
    server: Any = None
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    inherit_env: tuple[str, ...] = ()
    transport: Literal["http", "sse", "stdio", "memory"] = "http"
    protocol_version: Literal[
        "auto", "stateless", "handshake", "2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"
    ] = "auto"
    auth: AuthConfig = AuthConfig()
    headers: dict[str, str] = {}
    headers_command: tuple[str, ...] = ()
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
    max_caller_sessions: Count = 1_000
    caller_idle_s: PositiveSeconds = 300.0
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
    tools: ToolsConfig = ToolsConfig()
    hidden_texts: tuple[str, ...] = ()
    extras: dict[str, Any] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.command is not None:
            msgspec.structs.force_setattr(self, "transport", "stdio")
        elif self.server is not None:
            msgspec.structs.force_setattr(self, "transport", "memory")
        if self.instances == _ONE_PER_URL:
            count = len(self.url) if isinstance(self.url, tuple) else 1
            # The constructor checks nothing, so this may be anything; the full check reports it.
            discovers = isinstance(self.discovery, DiscoveryConfig) and self.discovery.kind != "none"
            if discovers and isinstance(self.url, str):
                count = self.max_instances
            msgspec.structs.force_setattr(self, "instances", count)

    def __reduce__(self) -> Any:
        if self.server is not None:
            raise ConfigError("a configuration with a server in memory can be neither pickled nor copied deeply")
        return super().__reduce__()

    @property
    def runs_here(self) -> bool:
        """Whether the manager itself starts the server: as a child process, or in memory."""
        return self.transport in ("stdio", "memory")

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
