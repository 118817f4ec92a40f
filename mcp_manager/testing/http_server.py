"""A faulty server over streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mcp_manager.testing.control import FaultControl
from mcp_manager.testing.faults.wire import check_notification
from mcp_manager.testing.scripted import Connection, Fault, Request
from mcp_manager.testing.scripted.connection import event
from mcp_manager.testing.scripted.stateless import META, STATELESS, header_fault, meta_of, refusal
from mcp_manager.testing.tools import Era, Tool

__all__ = ["FaultyServer"]

_Response = tuple[int, dict[str, str], dict[str, Any] | None]


class FaultyServer(FaultControl):
    """An MCP server over streamable HTTP, on a thread of its own, that fails as a test tells it to.

    It answers correctly but for the faults of :meth:`next` and :meth:`always`, and enters what it executes in
    :attr:`ledger`. ``with`` starts and ends it. Other processes control it with ``POST /__faults`` and ``GET /__ledger``.

    Parameters
    ----------
    era
        ``"handshake"`` (2025-11-25, with sessions) or ``"stateless"`` (2026-07-28).
    tools
        Its tools by name. Default: ``echo``, which returns its argument ``text``.
    sse
        Reply with event streams instead of JSON.
    port
        The port of 127.0.0.1 to listen on; 0 for any free one.
    seed
        The seed of the delays of ``slow``.
    standing_stream
        Accept the ``GET`` by which a client listens for messages that belong to no request; see :meth:`notify`.
    on_exit
        Called with the code of :meth:`Faults.exit`, in place of refusing connections from then on.
    """

    def __init__(
        self,
        era: Era = "handshake",
        tools: Mapping[str, Tool] | None = None,
        *,
        sse: bool = False,
        port: int = 0,
        seed: int = 0,
        standing_stream: bool = False,
        on_exit: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(era, {"echo": Tool()} if tools is None else tools, sse=sse, port=port, seed=seed)
        if standing_stream and era != "handshake":
            raise ValueError('only servers of the era "handshake" have a standing stream')
        self._has_standing_stream = standing_stream
        self._listening: set[asyncio.Queue[bytes]] = set()
        self._on_exit = on_exit
        self._flapping: asyncio.Task[None] | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """What to deploy: ``{"url": …}``."""
        return {"url": self.url}

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification, such as ``notifications/tools/list_changed``, to all clients that listen.

        Raises
        ------
        ValueError
            If none listens, or the method is a misspelt one. ``await server.wait_for("GET")`` waits for a client.
        TypeError
            If the parameters are not JSON.
        """
        check_notification(method)
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        # Encoded here, where an error reaches the caller.
        self._run(self._notify(event(message if params is None else {**message, "params": dict(params)})))

    async def _notify(self, message: bytes) -> None:
        if not self._listening:
            raise ValueError('no client listens: start the server with standing_stream=True, and wait_for("GET")')
        for queue in self._listening:
            queue.put_nowait(message)

    # Correct answers

    def answer(self, request: Request) -> _Response:
        """Return the status, headers and JSON-RPC reply that the specification requires."""
        if self._has_standing_stream and request.verb == "GET":
            return self._refusal(request) or (405, {}, None)
        if self.era == "handshake" or request.verb != "POST" or not isinstance(request.message, dict):
            return super().answer(request)
        meta = meta_of(request.params)
        if request.method == "initialize" or meta is None:
            return 400, {}, refusal(request.id, -32020, message="this server speaks 2026-07-28 only")
        fault = header_fault(request, meta)
        if fault is not None:
            return 400, {}, refusal(request.id, -32020, message=f"a header does not fit the body: {fault}")
        version = meta[f"{META}protocolVersion"]
        if version != STATELESS:
            return 400, {}, refusal(request.id, -32022, {"supported": [STATELESS], "requested": version})
        if "id" not in request.message:
            return 202, {}, None
        reply = self._result(request)
        missing = "error" in reply and reply["error"]["code"] == -32601
        return (404 if missing else 200), {}, reply

    def _initialize(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any]]:
        headers = {"Mcp-Session-Id": self.begin_session()} if self.sessions else {}
        return 200, headers, self._result(request)

    def _result(self, request: Request) -> dict[str, Any]:
        return self._answers.reply(request.message)

    # Faults of the server itself

    def take_fault(self, request: Request) -> Fault | None:
        """Take the next fault of the script for a request."""
        code = self.take_exit(request)
        if code is not None:
            return _Exit(self, code)
        fault = super().take_fault(request)
        is_listening = request.verb == "GET" and self._has_standing_stream and self._refusal(request) is None
        return _StandingStream(self._listening) if fault is None and is_listening else fault

    def flap(self, period_s: float) -> None:
        """Refuse and accept connections in turns."""
        if not period_s > 0:
            raise ValueError(f"flap needs a period above 0, not {period_s:g}")
        self._at_once(self._set_flapping(period_s))

    def restart(self) -> None:
        """Listen again on the same port, after :meth:`Faults.exit`; earlier sessions are unknown then."""
        self.expire_sessions()
        self.listen()

    def end(self, code: int) -> None:
        """End as :meth:`Faults.exit` has it."""
        if self._on_exit is not None:
            self._on_exit(code)
        else:
            self.in_background(self._stop_listening())

    def clear_faults(self) -> None:
        """Forget all faults, and answer correctly again; what was executed stays in the ledger."""
        super().clear_faults()
        if self._flapping is not None:
            self._at_once(self._set_flapping(None))

    def _at_once(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it before the caller goes on; a client that asks for it over HTTP gets its answer first."""
        if threading.current_thread() is self._thread:
            self.in_background(work)
        else:
            self._run(work)

    async def _set_flapping(self, period_s: float | None) -> None:
        flapping, self._flapping = self._flapping, None
        if flapping is not None:
            flapping.cancel()
            await asyncio.wait([flapping])
        if period_s is not None:
            await self._stop_listening()
            self._flapping = self.in_background(self._flap(period_s))

    async def _flap(self, period_s: float) -> None:
        try:
            while True:
                await self._stop_listening()
                await asyncio.sleep(period_s)
                await self._listen()
                await asyncio.sleep(period_s)
        except asyncio.CancelledError:
            if not self.is_ending:
                with contextlib.suppress(OSError):
                    await self._listen()
            raise


class _StandingStream:
    """The stream of a client that listens; it ends with the connection."""

    def __init__(self, listening: set[asyncio.Queue[bytes]]) -> None:
        self._listening = listening

    async def play(self, connection: Connection, request: Request | None) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._listening.add(queue)
        try:
            await connection.open_stream()
            while True:
                await connection.write_chunk(await queue.get())
        finally:
            self._listening.discard(queue)


class _Exit:
    """The end of a server in place of an answer."""

    def __init__(self, server: FaultyServer, code: int) -> None:
        self._server = server
        self._code = code

    async def play(self, connection: Connection, request: Request | None) -> None:
        connection.reset()
        self._server.end(self._code)
