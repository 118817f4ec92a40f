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
    """``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH``, or ``systemd`` for a socket that systemd passes. Port 0 is any
    free one. Without ``auth``, it must be an address of this machine. Default: ``127.0.0.1:8080``.
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
    """Set it if a proxy in front terminates TLS, and other machines reach the gateway only through it. Without it and
    without TLS, a warning says that clients send tokens in clear text. Default: ``False``.
    """
    allowed_hosts: SequenceNotStr[str]
    """The hosts to accept in the header ``Host``, with or without a port, such as ``gateway.example.com``. The names of
    this machine and the host of ``listen`` need no entry; the public name of a proxy in front does.
    """
    allowed_origins: SequenceNotStr[str]
    """The origins of web pages that may use the gateway, such as ``https://app.example.com``. Pages of this machine
    need no entry.
    """
    session_keys: SequenceNotStr[str]
    """Secrets of at least 32 characters that encrypt session ids, cursors and states. The first one encrypts, all
    decrypt. All processes and replicas need the same ones. Default: a random key at each start, so a restart ends all
    sessions. With keys, an id that its client has ended (``DELETE``) is valid again after a restart, until
    ``session_ttl_s`` is over. ``${VAR}`` is filled in.
    """
    session_ttl_s: float
    """How long a session of a client is valid. Default: ``86400.0``."""
    sessions: Literal["per_client", "shared"]
    """``per_client``: a client that can answer requests of servers, or whose server is in ``stateful``, has its own
    sessions with servers. ``shared``: all clients share sessions, and servers cannot send requests to clients. Default:
    ``per_client``.
    """
    stateful: SequenceNotStr[str]
    """The ids of servers that keep state between calls. Each client gets its own session with them."""
    workers: int
    """The number of processes that serve the address. Default: ``1``."""
    legacy_sse: bool
    """Whether to serve the transport HTTP+SSE of 2024-11-05 too, at ``/sse``. Default: ``False``."""
    keepalive_s: float
    """The time between two comments on an event stream, which keep proxies from closing it. Default: ``15.0``."""
    drain_timeout_s: float
    """How long running calls may take at shutdown. Then the gateway cancels them. Default: ``30.0``."""
    max_request_bytes: int
    """The most bytes in the body of a request. Default: ``4194304``."""
    input_wait_s: float
    """How long a request of a server waits for the answer of the client. Default: ``300.0``."""
    resume: ResumeConfig | ResumeFields
    """What the gateway keeps for clients that reconnect, see :class:`ResumeConfig`."""
    list_changed_delay_s: float
    """How long the gateway collects changes of lists before it tells clients once. Default: ``0.1``."""
    page_size: int
    """The most entries in a page of a merged list. Default: ``1000``."""
    discovery: Literal["list", "search"]
    """How clients find tools at ``/mcp``, see :class:`ViewConfig`. Default: ``list``."""
    hot: SequenceNotStr[str]
    """How clients find tools at ``/mcp``, see :class:`ViewConfig`."""
    min_ready: int
    """How many servers must be ready for ``/ready`` to return 200. Default: ``1``."""
    auth: ClientAuthConfig | ClientAuthFields
    """How clients authenticate, see :class:`ClientAuthConfig`."""
    allow: Sequence[AllowConfig | AllowFields]
    """The rules: what each principal may use, see :class:`AllowConfig`. Default: every client may use everything."""
    limits: Sequence[ClientLimitConfig | ClientLimitFields]
    """How much each principal may use, see :class:`ClientLimitConfig`."""
    credentials: Mapping[str, ServerCredentialsConfig | ServerCredentialsFields]
    """The credentials that servers get, by id of the server, see :class:`ServerCredentialsConfig`. Default: those in
    the configuration of the server.
    """
    audit: AuditConfig | AuditFields
    """The audit log, see :class:`AuditConfig`."""
    pins: PinsConfig | PinsFields
    """What to do if a tool definition differs from its pin, see :class:`PinsConfig`."""
    admin: AdminConfig | AdminFields | None
    """The admin API and its page, see :class:`AdminConfig`. Default: neither."""


class ViewFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ViewConfig`, as keyword arguments or as a mapping."""

    servers: SequenceNotStr[str]
    """The ids of its servers. Default: all, or those that ``tools`` match."""
    tools: SequenceNotStr[str]
    """Its tools: names or glob patterns ``{server}__{tool}``. Default: all tools of its servers."""
    names: Literal["full", "short"]
    """``full``: tools and prompts are called ``{server}__{name}``. ``short``: they keep their own name, if it is unique
    in the view. Default: ``full``.
    """
    instructions: str | None
    """A text for the model, in place of the instructions of the servers."""
    rename: Mapping[str, str]
    """New names of tools, by ``{server}__{tool}``."""
    descriptions: Mapping[str, str]
    """New descriptions of tools, by ``{server}__{tool}``."""
    discovery: Literal["list", "search"]
    """``list``: clients get the list of all tools. ``search``: they get the tools ``search_tools``, ``describe_tools``
    and ``call_tool``, and those in ``hot``. Clients can still call all tools by name. Default: ``list``.
    """
    hot: SequenceNotStr[str]
    """The tools that ``search`` always lists: names or glob patterns ``{server}__{tool}``."""
