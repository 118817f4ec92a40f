"""A server with scripted instances in virtual time: the whole call path is real except the transport."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NoReturn

from mcp_manager._core.jsonrpc import Message, scan_reply
from mcp_manager._core.router import Router
from mcp_manager.calls.affinity import Affinity
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import ServerConfig, parse_server_config
from mcp_manager.errors import CallError, DeadlineExceededError, ServerExitedError
from mcp_manager.health import HealthMonitor
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.protocol.request import encode_method, encode_params
from mcp_manager.servers.core_settings import balancing_settings, limits_of
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session.connect_slots import ConnectSlots
from mcp_manager.session.host import HostApplication
from mcp_manager.session.template import SessionTemplate
from mcp_manager.testing.virtual_time import VirtualTimeLoop
from mcp_manager.transports.base import Exchange, LifeSigns, MessageSink, Request

__all__ = ["Act", "ScriptedFleet", "Sent"]

S = 10**9


@dataclass(frozen=True)
class Act:
    """The scripted outcome of one request: it takes ``takes_s`` seconds, and fails if there is an ``error``.

    ``runs`` tells whether the server executed it, for the ledger.
    """

    takes_s: float = 0.001
    error: Callable[[], CallError] | None = None
    runs: bool = True
    result: Any = field(default_factory=dict)
    rpc_error: int | None = None


@dataclass
class Sent:
    """A request that reached an instance: when in virtual time, whether it was executed, and how it failed."""

    instance: int
    at_s: float
    method: str
    runs: bool
    session: int
    request_id: int
    failure: CallError | None = None


class _ScriptedTransport:
    """Complete the handshake at once, and play the fleet's acts for all other requests."""

    pid = 0
    has_request_streams = True
    keeps_session = False
    last_words = ""

    def __init__(self, fleet: ScriptedFleet, index: int, sink: MessageSink) -> None:
        self._fleet = fleet
        self._index = index
        self._sink = sink
        self._number = next(fleet.session_numbers)
        self._playing: set[asyncio.Task[Message]] = set()
        self._dead: CallError | None = None
        self._deadlines: dict[int, int] = {}
        self.messages = 0

    @property
    def life_signs(self) -> LifeSigns | None:
        return self if self._fleet.config.transport == "stdio" else None

    def called_until_ns(self) -> int:
        return max([0, *self._deadlines.values()])

    async def open(self) -> None:
        fleet = self._fleet
        fleet.starts.append((self._index, fleet.passed_s))
        await asyncio.sleep(fleet.start_s)
        if self._index in fleet.unreachable:
            raise fleet.unreachable[self._index]()
        fleet.running[self._index] = self

    def die(self, error: CallError) -> None:
        """End like a child process: requests in flight fail, then the sink is notified."""
        self._dead = error
        for playing in list(self._playing):
            playing.cancel()
        self._sink.on_closed(error)

    def settle(self, revision: str | None) -> None: ...

    async def listen(self) -> None: ...

    def channel(self, session: object, ids: object, dialect: Any = None) -> None:
        return None

    def landed(self, exchange: Exchange, answer: Any) -> NoReturn:
        raise NotImplementedError

    async def exchange(self, exchange: Exchange) -> Message:
        message = json.loads(exchange.frame)
        if message["method"] == "initialize":
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": self._fleet.capabilities,
                "serverInfo": {"name": "scripted", "version": "1"},
            }
            return _reply(exchange.request_id, result=result)
        if self._fleet.config.transport != "stdio":
            return await self._fleet.play(self._index, self._number, message, exchange)
        playing = asyncio.ensure_future(self._fleet.play(self._index, self._number, message, exchange))
        self._playing.add(playing)
        playing.add_done_callback(self._playing.discard)
        self._deadlines[exchange.request_id] = exchange.deadline_ns
        try:
            reply = await playing
            self.messages += 1
            return reply
        except asyncio.CancelledError:
            if self._dead is None:
                raise
            raise self._dead.for_caller("unknown") from None
        finally:
            del self._deadlines[exchange.request_id]

    def exchange_lasting(self, exchange: Exchange) -> Coroutine[Any, Any, Message]:
        raise NotImplementedError

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None: ...

    def interrupt(self) -> None: ...

    async def aclose(self, grace_s: float) -> None:
        if self._number not in self._fleet.ended:
            self._fleet.ended.append(self._number)


class ScriptedFleet:
    """One server with instances, called through a :class:`Dispatcher`; create it on a :class:`VirtualTimeLoop`.

    With a ``command`` the instances are child processes: each takes ``start_s`` to start, ``starts`` records which one
    started when, and :meth:`kill` ends one. ``ended`` has the numbers of the sessions that were closed.

    Each request plays one of ``acts``, whichever instance it goes to; the instance's own ``acts_of`` come first. When
    they are used up, requests succeed. ``sent`` is the ledger.
    """

    def __init__(self, *, instances: int = 1, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.acts: collections.deque[Act] = collections.deque()
        self.acts_of: dict[int, collections.deque[Act]] = collections.defaultdict(collections.deque)
        self.unreachable: dict[int, Callable[[], CallError]] = {}
        self.start_s = 0.0
        self.starts: list[tuple[int, float]] = []
        self.running: dict[int, _ScriptedTransport] = {}
        self.ended: list[int] = []
        self.sent: list[Sent] = []
        self.session_numbers = itertools.count(1)
        self.capabilities: dict[str, Any] = {"tools": {}}
        self.under_way = 0
        self.abandoned = 0
        spec = {
            "url": "http://127.0.0.1:9/mcp",
            "protocol_version": "2025-11-25",
            "instances": instances,
            "max_instances": max(instances, 1),
            "health": {"enabled": False},
            "breaker": {"enabled": False},
            **settings,
        }
        if "command" in settings:
            del spec["url"]
        self.config: ServerConfig = parse_server_config(spec, server_id="a")
        self.began_s = loop.time()
        self.router = Router()
        self.monitor = HealthMonitor(self.router, loop.clock, concurrency=1)
        self.router.add_server("a", balancing_settings(self.config.balancing), limits_of(self.config))
        host = HostApplication(
            identity=ClientIdentity(name="test", version="1", capabilities={}, stateless_capabilities={}),
            handlers={},
            clock=loop.clock,
            handler_timeout_s=10.0,
        )
        self.template = SessionTemplate(
            "a",
            self.config,
            host,
            lambda template, index, sink, sse, number: _ScriptedTransport(self, index, sink),
            ConnectSlots(64, most_waiting=512),
        )
        self.supervisor = Supervisor(self.template, self.router, self.monitor, loop.clock)
        self.monitor.server_added(self.supervisor)
        self.supervisor.scale(instances)
        self.flights = CallLog(64, self.router, loop.clock, loop.time)
        self.dispatcher = Dispatcher(self.router, self.monitor, loop.clock, self.flights, Affinity(self.router))

    async def connect(self) -> None:
        """Connect all reachable instances."""
        for instance in self.supervisor.instances:
            if instance.index not in self.unreachable:
                await instance.ready_session(1 << 62)

    def kill(self, index: int = 0, *, stderr: str = "") -> None:
        """End a child process as if by SIGKILL."""
        hint = f"its stderr ends: {stderr}" if stderr else "it wrote nothing to stderr"
        text = "the server process was killed by signal 9 (SIGKILL)"
        self.running.pop(index).die(ServerExitedError(text, server_id="a", exit_code=-9, hint=hint))

    async def call(self, method: str, params: object = None, *, timeout_s: float = 30.0) -> Message:
        """Make a call that begins now."""
        request = Request(encode_method(method), None if params is None else encode_params(params))
        now_ns = self.loop.clock()
        return await self.dispatcher.call(self.supervisor, method, request, now_ns, now_ns + round(timeout_s * S))

    async def tool(self, name: str = "echo", *, timeout_s: float = 30.0) -> Message:
        """Call a tool."""
        return await self.call("tools/call", {"name": name, "arguments": {}}, timeout_s=timeout_s)

    async def failure(self, method: str, params: object = None, *, timeout_s: float = 30.0) -> CallError:
        """Make a call that must fail, and return its error."""
        try:
            reply = await self.call(method, params, timeout_s=timeout_s)
        except CallError as error:
            return error
        raise AssertionError(f"the call was answered: {reply.result!r}")

    @property
    def passed_s(self) -> float:
        """Seconds of virtual time since the fleet was created."""
        return self.loop.time() - self.began_s

    @property
    def gaps_s(self) -> list[float]:
        """The seconds between successive requests."""
        return [after.at_s - before.at_s for before, after in zip(self.sent, self.sent[1:], strict=False)]

    async def aclose(self) -> None:
        """End the server and the monitor."""
        self.monitor.server_removed(self.supervisor)
        await self.supervisor.aclose(0.0)
        await self.monitor.aclose()

    async def play(self, index: int, session: int, message: dict[str, Any], exchange: Exchange) -> Message:
        """Play the next act for a request."""
        own = self.acts_of[index]
        act = own.popleft() if own else self.acts.popleft() if self.acts else Act()
        sent = Sent(index, self.passed_s, message["method"], act.runs, session, exchange.request_id)
        # Every attempt must have its own id.
        assert (session, sent.request_id) not in [(each.session, each.request_id) for each in self.sent]
        self.sent.append(sent)
        self.under_way += 1
        try:
            left_s = (exchange.deadline_ns - self.loop.clock()) / S
            await asyncio.sleep(max(0.0, min(act.takes_s, left_s)))
            if act.takes_s > left_s:
                sent.failure = DeadlineExceededError("no reply within the deadline")
                raise sent.failure
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self.under_way -= 1
        if act.error is not None:
            sent.failure = act.error()
            raise sent.failure
        if act.rpc_error is not None:
            return _reply(exchange.request_id, error={"code": act.rpc_error, "message": "scripted"})
        return _reply(exchange.request_id, result={"instance": index, **act.result})


def _reply(request_id: int, **outcome: Any) -> Message:
    return scan_reply(json.dumps({"jsonrpc": "2.0", "id": request_id, **outcome}).encode())
