"""MCP with a server object in this process: one ``run()`` of the object for each session, without socket or child."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextvars import Context, copy_context
from typing import Any, Final

from mcp_manager._core.jsonrpc import FrameError, Message, scan
from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError, ConnectError, ProtocolError, ServerExitedError
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.protocol.methods import DISCOVER
from mcp_manager.runtime.background import background_task
from mcp_manager.runtime.deadline_timer import DeadlineTimer, remaining_s
from mcp_manager.runtime.read_budget import FLOOD, FLOOD_DETAIL, CoroutineReader, ReadBudget, read_budget
from mcp_manager.transports.base import Exchange, FrameCheck, LifeSigns, MessageSink
from mcp_manager.transports.containment import Containment
from mcp_manager.transports.duplex import DuplexTransport
from mcp_manager.transports.memory.objects import Codec, Running, codec, prepared
from mcp_manager.transports.memory.streams import Inbox, Outbox
from mcp_manager.transports.received import broken_reply_to, read_messages

__all__ = ["MemoryTransport"]

_log = logging.getLogger(__name__)

_QUOTED: Final = 200
# The assumed cost of the first unsolicited message after a pause; the following ones are measured.
_FIRST_NS: Final = 20_000
# How long a server that was cancelled may take to end.
_CANCELLED_S: Final = 2.0


class MemoryTransport(DuplexTransport):
    """Exchange messages with a server object that runs as a task of this loop.

    Parameters
    ----------
    config
        The server's configuration, with the object and the limits.
    containment
        Logs what the object raises, once for each place and for all sessions of the server.
    sink, timer, secrets, check
        See :class:`DuplexTransport`.
    context
        The context that the server runs in; its handlers run in that of the call.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        containment: Containment,
        sink: MessageSink,
        timer: DeadlineTimer,
        secrets: Secrets,
        check: FrameCheck,
        context: Context,
    ) -> None:
        super().__init__(config, server_id=containment.server_id, sink=sink, timer=timer, secrets=secrets, check=check)
        # Every session has a transport of its own, and an object that fails is run again and again.
        self._containment = containment
        self._server = config.server
        self._largest = config.max_response_bytes
        self._context = context
        self._inbox = Inbox()
        self._codec: Codec | None = None
        self._task: asyncio.Task[None] | None = None
        self._budget: ReadBudget | None = None
        # The coroutines of the server that wait for their turn to send on.
        self._held: set[CoroutineReader] = set()
        self._last_ns = 0
        self.messages: int = 0

    @property
    def pid(self) -> int:
        """Always 0: there is no child."""
        return 0

    @property
    def life_signs(self) -> LifeSigns:
        """The signs of life of the server: what it has sent."""
        return self

    @property
    def last_words(self) -> str:
        """Where to look while the server does not answer; "" once it has ended."""
        return "its lifespan or a handler of it takes that long" if self._opened and self._failure is None else ""

    async def open(self) -> None:
        """Start a session of the server object; raises :class:`ConnectError` if it is of no known kind."""
        if self._failure is not None:
            raise self._failure.for_caller("not_sent")
        try:
            running, lifespan = prepared(self._server)
            self._codec = codec()
        except (TypeError, ImportError) as error:
            raise ConnectError(f"the server cannot run in memory: {error}", server_id=self._server_id) from None
        self._budget = read_budget()
        self._opened = True
        self._task = background_task(
            self._run(running, lifespan), "run a server in memory", context=self._context.copy()
        )

    async def exchange(self, exchange: Exchange) -> Message:
        """Send a request and wait for the reply; an SDK without ``server/discover`` is not asked for it."""
        if self._codec is not None and not self._codec.knows_discover and scan(exchange.frame).method == DISCOVER:
            code, text = METHOD_NOT_FOUND, "Method not found"
            frame = b'{"jsonrpc":"2.0","id":%d,"error":{"code":%d,"message":"%b"}}'
            return read_messages(frame % (exchange.request_id, code, text.encode()), self._faulty)[0]
        return await super().exchange(exchange)

    async def aclose(self, grace_s: float) -> None:
        """End the session: the server sees the end of its input, and is cancelled after ``grace_s`` seconds."""
        self._closing = True
        self._fail(ServerExitedError("the server was stopped", server_id=self._server_id))
        self._inbox.end()
        self._let_go()
        task = self._task
        if task is None or task.done():
            return
        try:
            if grace_s > 0:
                await asyncio.wait({task}, timeout=grace_s)
        finally:
            if not task.done():
                task.cancel()
                _, stuck = await asyncio.wait({task}, timeout=_CANCELLED_S)
                if stuck:
                    _log.warning("server %r: it runs on, although it was cancelled", self._server_id)

    async def _run(self, server: Running, lifespan: Any) -> None:
        error: BaseException | None = None
        try:
            async with lifespan:
                await server.run(self._inbox, Outbox(self._take), server.create_initialization_options())
        except asyncio.CancelledError as cancelled:
            if self._closing:
                raise
            error = cancelled
        except Exception as raised:
            error = raised
        except BaseException as ending:
            self._ended(ending)
            raise
        self._ended(error)

    def _ended(self, error: BaseException | None) -> None:
        """Note that the server has ended, and why."""
        self._inbox.end()
        if self._closing:
            if isinstance(error, Exception):
                # Its cleanup failed, which affects no call any more.
                self._containment.failure(error, "unknown")
            return
        what, hint = "the server in memory has ended", "its run() returned, although its input had not ended"
        if error is not None:
            cause = _single(error)
            what = self._secrets.quoted(f"the server in memory failed: {type(cause).__name__}: {cause}", _QUOTED)
            hint = "see the log for the traceback"
            if isinstance(cause, Exception):
                # Logged with its traceback, once for each place.
                self._containment.failure(cause, "unknown")
        failure = ServerExitedError(what, server_id=self._server_id, hint=hint)
        self._fail(failure)
        self._let_go()
        self._tell(self._sink.on_closed, failure)

    async def _write(self, exchange: Exchange) -> None:
        if self._inbox.is_full:
            blocked = asyncio.timeout(remaining_s(exchange.deadline_ns))
            try:
                async with blocked:
                    await self._inbox.wait_room()
            except TimeoutError:
                if not blocked.expired():
                    raise
                raise self.expired(exchange) from None
        self._check(exchange.frame)
        assert self._codec is not None
        self._inbox.put(self._codec.decode(exchange.frame), copy_context())

    def _broken(self) -> CallError:
        return ServerExitedError("the server in memory reads no more messages", server_id=self._server_id)

    def _take(self, sent: Any) -> Awaitable[None] | None:
        """Take a message of the server; return what it must wait for before it goes on."""
        if self._failure is not None:
            return None
        assert self._codec is not None
        frame = self._codec.encode(sent)
        if len(frame) > self._largest:
            self._refuse(frame, f"the server sent {len(frame)} bytes, max_response_bytes is {self._largest}")
            return None
        try:
            messages = read_messages(frame, self._faulty, may_batch=self._may_batch)
        except FrameError as error:
            self._refuse(frame, f"the message is not JSON-RPC: {error}")
            return None
        self.messages += 1
        is_awaited = True
        for message in messages:
            is_awaited = self._take_message(message) and is_awaited
        return None if is_awaited else self._paid()

    def _take_message(self, message: Message) -> bool:
        """Take one message, and return whether it is a reply that a caller waits for."""
        if message.method is None:
            return self._take_reply(message)
        self._take_unasked(message)
        return False

    def _refuse(self, frame: bytes, what: str) -> None:
        """Fail the request that an unusable message answers; if there is none, count a fault."""
        request_id = broken_reply_to(frame, self._pending.__contains__)
        if request_id is None:
            self._faulty("a message that cannot be used", what)
            return
        reply = self._pending.pop(request_id).reply
        if not reply.done():
            reply.set_exception(
                ProtocolError(
                    what,
                    server_id=self._server_id,
                    delivery="answered",
                    hint="raise max_response_bytes for this server if such replies are expected",
                )
            )

    def _paid(self) -> Awaitable[None] | None:
        """Charge the read budget for an unsolicited message; return what the server waits for if it is used up."""
        budget = self._budget
        assert budget is not None
        now_ns = budget.clock()
        cost_ns = min(now_ns - self._last_ns, _FIRST_NS) if self._last_ns else _FIRST_NS
        self._last_ns = now_ns
        return None if budget.spend(cost_ns) else self._hold(budget)

    async def _hold(self, budget: ReadBudget) -> None:
        """Hold the server back until the next time slice."""
        reader = CoroutineReader(budget, self._flooded)
        self._held.add(reader)
        try:
            await reader.next_slice()
        finally:
            self._held.discard(reader)
            reader.close()

    def _flooded(self) -> None:
        self._faulty(FLOOD, FLOOD_DETAIL)

    def _let_go(self) -> None:
        """Let the server go on that is held back: what it sends is dropped from now on."""
        for reader in tuple(self._held):
            reader.read_on()


def _single(error: BaseException) -> BaseException:
    """Return the one exception inside of nested groups, as task groups raise them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
