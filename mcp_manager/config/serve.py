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
        The address to listen on: ``127.0.0.1:8080``, ``[::1]:8080``, ``unix:/path/of/the/socket``, or ``systemd`` for a
        socket that systemd passes. Port 0 is any free one. As long as clients need not authenticate (``auth``), it must
        be of this machine.
    cert_file, key_file, key_password
        The certificate for TLS with its chain, its private key, both PEM, and the password of an encrypted key. Without
        ``key_file``, ``cert_file`` holds both. Default: no TLS.
    behind_tls_proxy
        Whether clients on other machines reach the gateway only through a proxy that terminates TLS. Without it and
        without TLS, a warning says that tokens travel in clear text.
    allowed_hosts
        Which ``Host`` headers are accepted besides ``localhost``, the loopback addresses and the host of ``listen``:
        names with or without a port, such as ``gateway.example.com``. A proxy in front needs its public name here.
    allowed_origins
        Which web pages may send requests besides those of this machine, such as ``https://app.example.com``.
    session_keys
        The secrets that seal session ids, cursors and states: at least 32 characters each. The first one seals, all of
        them open. Several processes need the same ones. Default: a random one at each start, so that a restart ends all
        sessions.
    session_ttl_s
        Seconds that a client's session is valid.
    sessions
        ``per_client``: a client that servers can ask, or whose server is in ``stateful``, has sessions of its own with
        servers. ``shared``: all clients share them, and no server can ask a client anything.
    stateful
        The ids of servers that remember something between calls, so that each client needs a session of its own.
    workers
        How many processes serve the address.
    legacy_sse
        Whether to serve the transport HTTP+SSE of 2024-11-05 as well, at ``/sse``.
    keepalive_s
        Seconds between two comments on an event stream, so that no proxy takes it for dead.
    drain_timeout_s
        Seconds that calls under way may take after a signal to end; then they are cancelled.
    max_request_bytes
        The most bytes in the body of a request.
    input_wait_s
        Seconds that a server's question waits for the answer of a client.
    resume
        What is kept for clients that reconnect, see :class:`ResumeConfig`.
    list_changed_delay_s
        Seconds that changes of lists are gathered before clients are told of them once.
    page_size
        The most entries of a page in a merged list.
    discovery, hot
        How tools are found at ``/mcp``, as for a view, see :class:`ViewConfig`.
    min_ready
        How many servers must be ready for ``/ready`` to be 200.
    auth
        How clients authenticate, see :class:`ClientAuthConfig`.
    allow
        What principals may use, see :class:`AllowConfig`. Default: everybody may use everything.
    limits
        How much each principal may use, see :class:`ClientLimitConfig`.
    credentials
        With which credentials servers get the requests of clients, by id of the server, see
        :class:`ServerCredentialsConfig`. Default: with the server's own.
    audit
        The audit log, see :class:`AuditConfig`.
    pins
        The tool definitions that are pinned, see :class:`PinsConfig`.
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
        The ids of its servers. Default: all.
    tools
        The tools, as names or glob patterns for ``{server}__{tool}``. Default: all tools of its servers.
    names
        ``full``: tools and prompts are called ``{server}__{name}``. ``short``: as their server calls them, as long as
        only one server of the view has that name.
    instructions
        A text for the model, in place of what the servers say.
    rename
        Names for tools, by ``{server}__{tool}``.
    descriptions
        Descriptions of tools, by ``{server}__{tool}``, in place of those of the server.
    discovery
        ``list``: clients get the list of all tools. ``search``: they get the tools ``search_tools``, ``describe_tools``
        and ``call_tool``, and those of ``hot``; all others can be called by their names as well.
    hot
        The tools that are always listed with ``search``, as names or glob patterns for ``{server}__{tool}``.
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
