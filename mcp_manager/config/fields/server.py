"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from mcp_manager.config.auth import AuthConfig
from mcp_manager.config.fields.auth import AuthFields
from mcp_manager.config.fields.health import BreakerFields, HealthFields, RestartFields
from mcp_manager.config.fields.resilience import (
    BalancingFields,
    DiscoveryFields,
    FallbackFields,
    HedgeFields,
    LimitsFields,
    RetryFields,
)
from mcp_manager.config.fields.tls import TlsFields
from mcp_manager.config.fields.tools import ToolsFields
from mcp_manager.config.health import BreakerConfig, HealthConfig, RestartConfig
from mcp_manager.config.memory import ServerObject
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
from mcp_manager.types import SequenceNotStr

__all__ = ["ServerFields"]


class ServerFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ServerConfig`, as keyword arguments or as a mapping."""

    name: str
    """Display name. Default: the server id."""
    server_type: str
    """Free text that groups servers; a :class:`~mcp_manager.Selector` can match it. Default: ``mcp``."""
    url: str | SequenceNotStr[str] | None
    """An ``http`` or ``https`` URL without user name, password and fragment; or a template with ``{i}`` (zero-padded:
    ``{i:02d}``), which becomes 0, 1, … for the instances; or one URL per instance.
    """
    server: ServerObject | None
    """A server object in memory instead of a URL or a program: one of the packages ``mcp`` or ``fastmcp``. It runs in
    this process, on the manager's loop, with one run for each instance. Only Python code can give it.
    """
    command: str | None
    """The program of a stdio server (never run through a shell), its arguments and its working directory."""
    args: SequenceNotStr[str]
    """The program of a stdio server (never run through a shell), its arguments and its working directory."""
    env: Mapping[str, str]
    """Environment variables for the child process, by name."""
    cwd: str | None
    """The program of a stdio server (never run through a shell), its arguments and its working directory."""
    inherit_env: SequenceNotStr[str]
    """Names of variables to pass on from this process, in addition to the few harmless ones that every child gets
    (``PATH``, ``HOME``, ``LANG`` and the like).
    """
    transport: Literal["http", "sse", "stdio", "memory"]
    """Set automatically: ``stdio`` with a ``command``, ``memory`` with a ``server``, else ``http``. A configuration may
    name it, as ``transport`` or ``type``. ``sse`` is HTTP+SSE, the transport of 2024-11-05; ``http`` falls back to it
    by itself. Default: ``http``.
    """
    protocol_version: Literal[
        "auto", "stateless", "handshake", "2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"
    ]
    """``auto`` detects what the server speaks. ``stateless`` and ``handshake`` allow only the revisions without or with
    a handshake, the newest first. A revision such as ``2025-06-18`` allows only that one. Default: ``auto``.
    """
    auth: AuthConfig | AuthFields
    """See :class:`AuthConfig`. A stdio server takes its credentials through ``env``."""
    headers: Mapping[str, str]
    """Header fields to send with every HTTP request, by name."""
    headers_command: SequenceNotStr[str]
    """A program that prints further header fields as a JSON object, and its arguments; run as ``auth.token_command``.
    Its fields replace those of the same names in ``headers``.
    """
    tls: TlsConfig | TlsFields
    """See :class:`TlsConfig`."""
    proxy: str | None
    """The proxy to an HTTP server: an ``http://`` or ``https://`` URL, with user and password if the proxy needs them;
    ``env`` to use ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in lower or upper case; ``""`` for
    no proxy. The default is ``env``, except for this machine's own addresses (``localhost``, 127.0.0.0/8, ``[::1]``)
    and together with ``discovery`` or ``unix_socket``. ``https`` requests go through a tunnel (``CONNECT``). ``tls``
    applies to an ``https://`` proxy too. The proxy resolves names, so it alone can refuse those that resolve to a
    link-local or multicast address.
    """
    unix_socket: str | None
    """The path of a unix socket to connect to instead of the host in ``url``; ``url`` still supplies the ``Host``
    header and the path. As ``url``, ``http+unix://%2Frun%2Fserver.sock/mcp`` sets both.
    """
    priority: int
    """0 to 255; servers with a higher priority are preferred. Default: ``0``."""
    tags: SequenceNotStr[str]
    """Words to select servers by."""
    instances: int
    """How many instances to run, from 0 to 10,000; 0 suspends the server. Default: one per URL of a list,
    ``max_instances`` with ``discovery``, else 1.
    """
    max_instances: int
    """The most instances that scaling may request, from 1 to 10,000. Default: ``64``."""
    connect: Literal["eager", "lazy"]
    """``eager`` connects and probes on deployment; ``lazy`` does so with the first call or the first wait for
    readiness. Default: ``eager``.
    """
    connect_timeout_s: float
    """Seconds for connecting, handshake and first probe together. ``deploy()``, ``start()``, ``apply()`` and
    ``scale()`` wait no longer than this in total; a program may continue to start afterwards. Default: ``5.0``.
    """
    start_timeout_s: float
    """Seconds a program may take from its start to the end of the handshake. A program that exits fails at once. After
    every start that timed out, the limit doubles, up to ten times its value, until a start succeeds. Over HTTP: how
    long a late answer to a handshake still counts, while further attempts are made. Default: ``60.0``.
    """
    request_timeout_s: float
    """Seconds a call may take if the caller gives no timeout. Default: ``60.0``."""
    shutdown_grace_s: float
    """Seconds a session or child process has to end by itself; 0 ends it at once. Default: ``2.0``."""
    drain_timeout_s: float
    """Seconds the calls of an instance that is scaled down or replaced may still take; then it ends and they fail.
    Default: ``30.0``.
    """
    max_response_bytes: int
    """The largest reply to accept, in bytes, at least 1,024. Default: ``16777216``."""
    max_response_values: int | None
    """The most JSON values in a result that is decoded (``call_tool``, ``list_tools``, ``request`` and the like), at
    least 1,000. Members, objects and arrays count as two, long numbers as more. Default: one per 48 bytes of
    ``max_response_bytes``, at most 300,000. Decoding blocks the event loop, so this bounds for how long.
    """
    max_caller_sessions: int
    """The most sessions to keep for callers (:class:`~mcp_manager.Caller`), from 1; above it, the one that was not used
    for longest is ended. Default: ``1000``.
    """
    caller_idle_s: float
    """Seconds after its last call for which the session of a caller is kept. Default: ``300.0``."""
    cache: bool
    """Cache results for as long as the server declares them valid. Only servers of 2026-07-28 or later do. Default:
    ``True``.
    """
    validate_output: bool
    """Check what a tool returns against the output schema in its listing. Default: ``True``."""
    breaker: BreakerConfig | BreakerFields
    """See :class:`BreakerConfig`, :class:`HealthConfig` and :class:`RestartConfig`."""
    health: HealthConfig | HealthFields
    """See :class:`BreakerConfig`, :class:`HealthConfig` and :class:`RestartConfig`."""
    restart: RestartConfig | RestartFields
    """See :class:`BreakerConfig`, :class:`HealthConfig` and :class:`RestartConfig`."""
    balancing: BalancingConfig | BalancingFields
    """See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
    :class:`FallbackConfig` and :class:`LimitsConfig`.
    """
    discovery: DiscoveryConfig | DiscoveryFields
    """See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
    :class:`FallbackConfig` and :class:`LimitsConfig`.
    """
    retry: RetryConfig | RetryFields
    """See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
    :class:`FallbackConfig` and :class:`LimitsConfig`.
    """
    hedge: HedgeConfig | HedgeFields
    """See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
    :class:`FallbackConfig` and :class:`LimitsConfig`.
    """
    fallback: FallbackConfig | FallbackFields
    """See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
    :class:`FallbackConfig` and :class:`LimitsConfig`.
    """
    limits: LimitsConfig | LimitsFields
    """See :class:`BalancingConfig`, :class:`DiscoveryConfig`, :class:`RetryConfig`, :class:`HedgeConfig`,
    :class:`FallbackConfig` and :class:`LimitsConfig`.
    """
    tools: ToolsConfig | ToolsFields
    """Which tools may be listed and called: see :class:`ToolsConfig`."""
    hidden_texts: SequenceNotStr[str]
    """Additional texts to mask in every error, log, view and snapshot; texts shorter than four characters are ignored.
    Values that ``${VAR}`` inserted from the environment are added automatically, except very short ones. Keys, tokens,
    headers, ``env`` and the like are always masked.
    """
    extras: Mapping[str, Any]
    """Unknown fields of a client's configuration file, kept unchanged and never interpreted."""
