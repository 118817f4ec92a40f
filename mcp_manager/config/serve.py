"""The configuration of the gateway: how the fleet is served, and the views of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Unpack

import msgspec
from msgspec import Meta

from mcp_manager.config._struct import Count, PositiveSeconds, Seconds, Settings, as_section
from mcp_manager.config.access import AllowConfig, ClientAuthConfig, ClientLimitConfig
from mcp_manager.config.admin import AdminConfig
from mcp_manager.config.audit import AuditConfig, PinsConfig
from mcp_manager.config.resume import ResumeConfig
from mcp_manager.config.server_credentials import ServerCredentialsConfig
from mcp_manager.config.tools import ToolPatterns

if TYPE_CHECKING:
    from mcp_manager.config.fields.serve import ServeFields, ViewFields

__all__ = ["ServeConfig", "ViewConfig"]

_Names = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=1000)]
_ByTool = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=512)], str], Meta(max_length=10_000)]


class ServeConfig(Settings, frozen=True, kw_only=True):
    """Configure the gateway, which serves the whole fleet at one address.

    Parameters
    ----------
    listen
        ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH``, or ``systemd`` for a socket that systemd passes. Port 0
        is any free one. Without ``auth``, it must be an address of this machine.
    cert_file, key_file, key_password
        The certificate for TLS with its chain, its private key, both PEM, and the password of an encrypted key. Without
        ``key_file``, ``cert_file`` holds both. Default: no TLS.
    behind_tls_proxy
        Set it if a proxy in front terminates TLS, and other machines reach the gateway only through it. Without
        it and without TLS, a warning says that clients send tokens in clear text.
    allowed_hosts
        The hosts to accept in the header ``Host``, with or without a port, such as ``gateway.example.com``. The
        names of this machine and the host of ``listen`` need no entry; the public name of a proxy in front
        does.
    allowed_origins
        The origins of web pages that may use the gateway, such as ``https://app.example.com``. Pages of this
        machine need no entry.
    session_keys
        Secrets of at least 32 characters that encrypt session ids, cursors and states. The first one encrypts,
        all decrypt. All processes and replicas need the same ones. Default: a random key at each start, so a
        restart ends all sessions. With keys, an id that its client has ended (``DELETE``) is valid again after
        a restart, until ``session_ttl_s`` is over. ``${VAR}`` is filled in.
    session_ttl_s
        How long a session of a client is valid.
    sessions
        ``per_client``: a client that can answer requests of servers, or whose server is in ``stateful``, has
        its own sessions with servers. ``shared``: all clients share sessions, and servers cannot send requests
        to clients.
    stateful
        The ids of servers that keep state between calls. Each client gets its own session with them.
    workers
        The number of processes that serve the address.
    legacy_sse
        Whether to serve the transport HTTP+SSE of 2024-11-05 too, at ``/sse``.
    keepalive_s
        The time between two comments on an event stream, which keep proxies from closing it.
    drain_timeout_s
        How long running calls may take at shutdown. Then the gateway cancels them.
    max_request_bytes
        The most bytes in the body of a request.
    input_wait_s
        How long a request of a server waits for the answer of the client.
    resume
        What the gateway keeps for clients that reconnect, see :class:`ResumeConfig`.
    list_changed_delay_s
        How long the gateway collects changes of lists before it tells clients once.
    page_size
        The most entries in a page of a merged list.
    discovery, hot
        How clients find tools at ``/mcp``, see :class:`ViewConfig`.
    min_ready
        How many servers must be ready for ``/ready`` to return 200.
    auth
        How clients authenticate, see :class:`ClientAuthConfig`.
    allow
        The rules: what each principal may use, see :class:`AllowConfig`. Default: every client may use
        everything.
    limits
        How much each principal may use, see :class:`ClientLimitConfig`.
    credentials
        The credentials that servers get, by id of the server, see :class:`ServerCredentialsConfig`. Default:
        those in the configuration of the server.
    audit
        The audit log, see :class:`AuditConfig`.
    pins
        What to do if a tool definition differs from its pin, see :class:`PinsConfig`.
    admin
        The admin API and its page, see :class:`AdminConfig`. Default: neither.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ServeFields]) -> None: ...

    listen: str = "127.0.0.1:8080"
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    behind_tls_proxy: bool = False
    allowed_hosts: _Names = ()
    allowed_origins: _Names = ()
    session_keys: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    session_ttl_s: PositiveSeconds = 86_400.0
    sessions: Literal["per_client", "shared"] = "per_client"
    stateful: _Names = ()
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    legacy_sse: bool = False
    keepalive_s: PositiveSeconds = 15.0
    drain_timeout_s: Seconds = 30.0
    max_request_bytes: Annotated[int, Meta(ge=1_024, le=1_073_741_824)] = 4_194_304
    input_wait_s: PositiveSeconds = 300.0
    resume: ResumeConfig = ResumeConfig()
    list_changed_delay_s: Seconds = 0.1
    page_size: Count = 1_000
    discovery: Literal["list", "search"] = "list"
    hot: ToolPatterns = ()
    min_ready: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    auth: ClientAuthConfig = ClientAuthConfig()
    allow: Annotated[tuple[AllowConfig, ...], Meta(max_length=1000)] = ()
    limits: Annotated[tuple[ClientLimitConfig, ...], Meta(max_length=1000)] = ()
    credentials: dict[Annotated[str, Meta(min_length=1, max_length=256)], ServerCredentialsConfig] = {}
    audit: AuditConfig = AuditConfig()
    pins: PinsConfig = PinsConfig()
    admin: AdminConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given: object = self.admin
        if isinstance(given, Mapping):
            msgspec.structs.force_setattr(self, "admin", as_section(AdminConfig, given, "admin"))


class ViewConfig(Settings, frozen=True, kw_only=True):
    """Choose servers and tools that clients see together at ``/mcp/NAME``.

    Parameters
    ----------
    servers
        The ids of its servers. Default: all, or those that ``tools`` match.
    tools
        Its tools: names or glob patterns ``{server}__{tool}``. Default: all tools of its servers.
    names
        ``full``: tools and prompts are called ``{server}__{name}``. ``short``: they keep their own name, if it
        is unique in the view.
    instructions
        A text for the model, in place of the instructions of the servers.
    rename
        New names of tools, by ``{server}__{tool}``.
    descriptions
        New descriptions of tools, by ``{server}__{tool}``.
    discovery
        ``list``: clients get the list of all tools. ``search``: they get the tools ``search_tools``,
        ``describe_tools`` and ``call_tool``, and those in ``hot``. Clients can still call all tools by name.
    hot
        The tools that ``search`` always lists: names or glob patterns ``{server}__{tool}``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ViewFields]) -> None: ...

    servers: _Names = ()
    tools: ToolPatterns = ()
    names: Literal["full", "short"] = "full"
    instructions: str | None = None
    rename: _ByTool = {}
    descriptions: _ByTool = {}
    discovery: Literal["list", "search"] = "list"
    hot: ToolPatterns = ()
