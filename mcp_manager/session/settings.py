"""What every session of one server is made from, and what they know of the server together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.protocol.envelope import TraceContext
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.session.connect_slots import ConnectSlots
from mcp_manager.session.endpoints import Endpoints
from mcp_manager.session.handlers import HandlerMap
from mcp_manager.session.knowledge.kept_results import KeptResults
from mcp_manager.session.knowledge.mirrored_tools import MirroredTools
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.session.knowledge.response_cache import ResponseCache
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.session.negotiation import EraMemory
from mcp_manager.session.subscriptions import Subscriptions
from mcp_manager.transports.base import MessageSink, Transport
from mcp_manager.transports.containment import ContainedTransport, Containment
from mcp_manager.transports.http.cookies import CookieJar

if TYPE_CHECKING:
    from mcp_manager.auth.oauth.authorizations import Authorizations

__all__ = ["SessionSettings", "TransportFactory"]

TransportFactory = Callable[["SessionSettings", int, MessageSink, bool, int], Transport]
"""``make(settings, index, sink, sse, number)`` makes the transport of an instance; with ``sse``, HTTP+SSE in place of HTTP."""


class SessionSettings:
    """What sessions of one server are made from.

    ``memory``, ``mirrored``, ``outputs``, ``hints``, ``kept``, ``cache`` and ``faults`` are what they have found out,
    ``subscriptions`` what is wanted of them; all of it outlives each of them, and is made when it is asked for: most servers of a large fleet
    are never called.

    Parameters
    ----------
    server_id, config
        The server and its configuration.
    client, handlers, trace_context
        The manager's own.
    make_transport
        See :data:`TransportFactory`.
    connect_slots
        Bounds how many sessions of its kind are made at a time, over all servers.
    clock
        Monotonic nanoseconds.
    authorizations
        What obtains the server's tokens, ``None`` where its credentials are fixed.
    endpoints
        Where its instances are, if they are found by name.
    handler_timeout_s
        Seconds a handler may take.
    listened
        The notifications that a handler of the user's takes.
    began
        ``began(server_id, kind)``: see :class:`~mcp_manager.session.subscriptions.Subscriptions`.
    context
        What handlers run in where a server asks or tells something outside of a call; an empty one by default.
    lag
        How late the loop is.
    """

    __slots__ = (
        "_began",
        "_cache",
        "_clock",
        "_containment",
        "_cookies",
        "_faults",
        "_hints",
        "_kept",
        "_listened",
        "_make_transport",
        "_memory",
        "_mirrored",
        "_outputs",
        "_secrets",
        "_subscriptions",
        "authorizations",
        "client",
        "config",
        "connect_slots",
        "context",
        "endpoints",
        "handler_timeout_s",
        "handlers",
        "lag",
        "server_id",
        "trace_context",
    )

    def __init__(
        self,
        server_id: str,
        config: ServerConfig,
        client: ClientIdentity,
        handlers: HandlerMap,
        make_transport: TransportFactory,
        connect_slots: ConnectSlots,
        clock: Callable[[], int],
        trace_context: TraceContext | None = None,
        authorizations: Authorizations | None = None,
        *,
        endpoints: Endpoints | None = None,
        handler_timeout_s: float,
        listened: Collection[str] = (),
        began: Callable[[str, str], None] | None = None,
        context: Context | None = None,
        lag: LoopLag | None = None,
    ) -> None:
        self.server_id = server_id
        self.config = config
        self.client = client
        self.handlers = handlers
        self._make_transport = make_transport
        self.connect_slots = connect_slots
        self.trace_context = trace_context
        self.authorizations = authorizations
        self.endpoints = endpoints
        self.handler_timeout_s = handler_timeout_s
        self._clock = clock
        self.context = context if context is not None else bare_context()
        self.lag = lag if lag is not None else LoopLag()
        self._listened = listened
        self._began = began
        self._containment: Containment | None = None
        self._cookies: dict[int, CookieJar] | None = None
        self._memory: EraMemory | None = None
        self._faults: PeerFaults | None = None
        self._cache: ResponseCache | None = None
        self._subscriptions: Subscriptions | None = None
        self._mirrored: MirroredTools | None = None
        self._outputs: OutputSchemas | None = None
        self._hints: ToolHints | None = None
        self._kept: KeptResults | None = None
        self._secrets: Secrets | None = None

    @property
    def memory(self) -> EraMemory:
        """What is known of the eras of its places."""
        if self._memory is None:
            self._memory = EraMemory()
        return self._memory

    @property
    def faults(self) -> PeerFaults:
        """What it sent that it should not have."""
        if self._faults is None:
            self._faults = PeerFaults(self.server_id, self._clock, self.secrets)
        return self._faults

    def count_fault(self, kind: str, detail: str = "") -> None:
        """Count a fault; see :meth:`PeerFaults.count`."""
        self.faults.count(kind, detail)

    @property
    def secrets(self) -> Secrets:
        """What it was trusted with, for whoever quotes it."""
        if self._secrets is None:
            self._secrets = Secrets(self.config)
        return self._secrets

    @property
    def containment(self) -> Containment:
        """What turns exceptions that nobody foresaw into errors of its calls."""
        if self._containment is None:
            self._containment = Containment(self.server_id, self.secrets)
        return self._containment

    @property
    def fault_counts(self) -> dict[str, int]:
        """How often it did, by kind."""
        return {} if self._faults is None else dict(self._faults.counts)

    @property
    def is_flooding(self) -> bool:
        """Whether it sends more than there is time to read; see :attr:`PeerFaults.is_flooding`."""
        return self._faults is not None and self._faults.is_flooding

    @property
    def cache(self) -> ResponseCache:
        """Its answers that hold for a while."""
        if self._cache is None:
            self._cache = ResponseCache(self._clock, enabled=self.config.cache)
        return self._cache

    @property
    def subscriptions(self) -> Subscriptions:
        """What is wanted of its sessions."""
        if self._subscriptions is None:
            began = None if self._began is None else partial(self._began, self.server_id)
            self._subscriptions = Subscriptions(self._listened, began)
        return self._subscriptions

    @property
    def mirrored(self) -> MirroredTools:
        """Which arguments of its tools go into headers."""
        if self._mirrored is None:
            self._mirrored = MirroredTools(self.faults)
        return self._mirrored

    @property
    def outputs(self) -> OutputSchemas:
        """What its tools have promised to return."""
        if self._outputs is None:
            self._outputs = OutputSchemas(self.faults, self._clock)
        return self._outputs

    @property
    def hints(self) -> ToolHints:
        """What its tools say of themselves."""
        if self._hints is None:
            self._hints = ToolHints()
        return self._hints

    @property
    def kept(self) -> KeptResults | None:
        """Its last results, for when it fails; ``None`` if none are kept."""
        if self._kept is None and self.config.fallback.stale_s > 0:
            self._kept = KeptResults()
        return self._kept

    def places(self, count: int) -> Sequence[int]:
        """Return the indexes of at most so many instances: the first ones, or those of what was found."""
        return range(count) if self.endpoints is None else self.endpoints.chosen(count)

    def succeed(self, before: SessionSettings) -> None:
        """Ask of the server what was asked of it under the configuration that this one replaces."""
        if before._memory is not None:
            self.memory.log_level = before._memory.log_level
        self._subscriptions = before.subscriptions

    def forget_instance(self, number: int) -> None:
        """Forget what the sessions of an instance were told of."""
        if self._cookies is not None:
            self._cookies.pop(number, None)
        if self._subscriptions is not None:
            self._subscriptions.heard.pop(number, None)

    def transport(self, index: int, sink: MessageSink, sse: bool, number: int) -> Transport:
        """Make the transport of an instance; with ``sse``, HTTP+SSE in place of streamable HTTP."""
        return ContainedTransport(self._make_transport(self, index, sink, sse, number), self.containment)

    def cookies(self, number: int) -> CookieJar:
        """Return those that the sessions of an instance were given."""
        if self._cookies is None:
            self._cookies = {}
        return self._cookies.setdefault(number, CookieJar())

    def place(self, index: int) -> str:
        """Name what an instance's era is a property of: the origin of its URL, its endpoint, or the one program."""
        if self.config.command is not None:
            return ""
        from yarl import URL  # noqa: PLC0415  (it comes with aiohttp, which is loaded with the first transport)

        origin = str(URL(self.config.instance_url(index)).origin())
        return origin if self.endpoints is None else f"{origin} at {self.endpoints[index]}"
