"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from mcp_manager.config.access import AllowConfig, ClientAuthConfig, ClientLimitConfig
from mcp_manager.config.admin import AdminConfig
from mcp_manager.config.audit import AuditConfig, PinsConfig
from mcp_manager.config.fields.access import AllowFields, ClientAuthFields, ClientLimitFields
from mcp_manager.config.fields.admin import AdminFields
from mcp_manager.config.fields.audit import AuditFields, PinsFields
from mcp_manager.config.fields.resume import ResumeFields
from mcp_manager.config.fields.server_credentials import ServerCredentialsFields
from mcp_manager.config.resume import ResumeConfig
from mcp_manager.config.server_credentials import ServerCredentialsConfig
from mcp_manager.types import SequenceNotStr

__all__ = ["ServeFields", "ViewFields"]


class ServeFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ServeConfig`, as keyword arguments or as a mapping."""

    listen: str
    """The address to listen on: ``127.0.0.1:8080``, ``[::1]:8080``, ``unix:/path/of/the/socket``, or ``systemd`` for a
    socket that systemd passes. Port 0 is any free one. As long as clients need not authenticate (``auth``), it must be
    of this machine. Default: ``127.0.0.1:8080``.
    """
    cert_file: str | None
    """The certificate for TLS with its chain, its private key, both PEM, and the password of an encrypted key. Without
    ``key_file``, ``cert_file`` holds both. Default: no TLS.
    """
    key_file: str | None
    """The certificate for TLS with its chain, its private key, both PEM, and the password of an encrypted key. Without
    ``key_file``, ``cert_file`` holds both. Default: no TLS.
    """
    key_password: str | None
    """The certificate for TLS with its chain, its private key, both PEM, and the password of an encrypted key. Without
    ``key_file``, ``cert_file`` holds both. Default: no TLS.
    """
    behind_tls_proxy: bool
    """Whether clients on other machines reach the gateway only through a proxy that terminates TLS. Without it and
    without TLS, a warning says that tokens travel in clear text. Default: ``False``.
    """
    allowed_hosts: SequenceNotStr[str]
    """Which ``Host`` headers are accepted besides ``localhost``, the loopback addresses and the host of ``listen``:
    names with or without a port, such as ``gateway.example.com``. A proxy in front needs its public name here.
    """
    allowed_origins: SequenceNotStr[str]
    """Which web pages may send requests besides those of this machine, such as ``https://app.example.com``."""
    session_keys: SequenceNotStr[str]
    """The secrets that seal session ids, cursors and states: at least 32 characters each. The first one seals, all of
    them open. Several processes need the same ones. Default: a random one at each start, so that a restart ends all
    sessions.
    """
    session_ttl_s: float
    """Seconds that a client's session is valid. Default: ``86400.0``."""
    sessions: Literal["per_client", "shared"]
    """``per_client``: a client that servers can ask, or whose server is in ``stateful``, has sessions of its own with
    servers. ``shared``: all clients share them, and no server can ask a client anything. Default: ``per_client``.
    """
    stateful: SequenceNotStr[str]
    """The ids of servers that remember something between calls, so that each client needs a session of its own."""
    workers: int
    """How many processes serve the address. Default: ``1``."""
    legacy_sse: bool
    """Whether to serve the transport HTTP+SSE of 2024-11-05 as well, at ``/sse``. Default: ``False``."""
    keepalive_s: float
    """Seconds between two comments on an event stream, so that no proxy takes it for dead. Default: ``15.0``."""
    drain_timeout_s: float
    """Seconds that calls under way may take after a signal to end; then they are cancelled. Default: ``30.0``."""
    max_request_bytes: int
    """The most bytes in the body of a request. Default: ``4194304``."""
    input_wait_s: float
    """Seconds that a server's question waits for the answer of a client. Default: ``300.0``."""
    resume: ResumeConfig | ResumeFields
    """What is kept for clients that reconnect, see :class:`ResumeConfig`."""
    list_changed_delay_s: float
    """Seconds that changes of lists are gathered before clients are told of them once. Default: ``0.1``."""
    page_size: int
    """The most entries of a page in a merged list. Default: ``1000``."""
    discovery: Literal["list", "search"]
    """How tools are found at ``/mcp``, as for a view, see :class:`ViewConfig`. Default: ``list``."""
    hot: SequenceNotStr[str]
    """How tools are found at ``/mcp``, as for a view, see :class:`ViewConfig`."""
    min_ready: int
    """How many servers must be ready for ``/ready`` to be 200. Default: ``1``."""
    auth: ClientAuthConfig | ClientAuthFields
    """How clients authenticate, see :class:`ClientAuthConfig`."""
    allow: Sequence[AllowConfig | AllowFields]
    """What principals may use, see :class:`AllowConfig`. Default: everybody may use everything."""
    limits: Sequence[ClientLimitConfig | ClientLimitFields]
    """How much each principal may use, see :class:`ClientLimitConfig`."""
    credentials: Mapping[str, ServerCredentialsConfig | ServerCredentialsFields]
    """With which credentials servers get the requests of clients, by id of the server, see
    :class:`ServerCredentialsConfig`. Default: with the server's own.
    """
    audit: AuditConfig | AuditFields
    """The audit log, see :class:`AuditConfig`."""
    pins: PinsConfig | PinsFields
    """The tool definitions that are pinned, see :class:`PinsConfig`."""
    admin: AdminConfig | AdminFields | None
    """The admin API and its page, see :class:`AdminConfig`. Default: neither."""


class ViewFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ViewConfig`, as keyword arguments or as a mapping."""

    servers: SequenceNotStr[str]
    """The ids of its servers. Default: all."""
    tools: SequenceNotStr[str]
    """The tools, as names or glob patterns for ``{server}__{tool}``. Default: all tools of its servers."""
    names: Literal["full", "short"]
    """``full``: tools and prompts are called ``{server}__{name}``. ``short``: as their server calls them, as long as
    only one server of the view has that name. Default: ``full``.
    """
    instructions: str | None
    """A text for the model, in place of what the servers say."""
    rename: Mapping[str, str]
    """Names for tools, by ``{server}__{tool}``."""
    descriptions: Mapping[str, str]
    """Descriptions of tools, by ``{server}__{tool}``, in place of those of the server."""
    discovery: Literal["list", "search"]
    """``list``: clients get the list of all tools. ``search``: they get the tools ``search_tools``, ``describe_tools``
    and ``call_tool``, and those of ``hot``; all others can be called by their names as well. Default: ``list``.
    """
    hot: SequenceNotStr[str]
    """The tools that are always listed with ``search``, as names or glob patterns for ``{server}__{tool}``."""
