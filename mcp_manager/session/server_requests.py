"""What a server asks of its client, in either era: handlers run here, each in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
import orjson

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import DeadlineExceededError, InputRequiredError, RpcError
from mcp_manager.protocol import methods
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, METHOD_NOT_FOUND
from mcp_manager.protocol.multi_round import InputRequest
from mcp_manager.session.peer_faults import PeerFaults
from mcp_manager.transports.deadline_timer import remaining_s

__all__ = ["Handler", "Handlers", "ServerRequests"]

_log = logging.getLogger(__name__)

Handler = Callable[[str, Any], Awaitable[Any]]
"""``await handler(server_id, params)`` answers a server's request, or takes its notification."""
Handlers = Mapping[str, Handler]
"""Handlers by method name, such as ``sampling/createMessage`` or ``notifications/message``."""

# Together: one server's flood must not become this process's.
_MAX_RUNNING: Final = 64


class _Cancelled(msgspec.Struct, rename="camel"):
    request_id: msgspec.Raw


_cancelled_decoder = msgspec.json.Decoder(_Cancelled)


class ServerRequests:
    """Run the handlers for one session.

    Parameters
    ----------
    server_id
        What handlers are told.
    handlers
        By method; what has none is answered with "method not found".
    faults
        Counts what cannot be served.
    send
        ``await send(frame)`` hands a reply over, or gives it up quietly.
    """

    __slots__ = ("_answering", "_closed", "_faults", "_handlers", "_running", "_send", "_server_id", "_tasks")

    def __init__(
        self,
        server_id: str,
        handlers: Handlers,
        faults: PeerFaults,
        send: Callable[[bytes], Coroutine[Any, Any, None]],
    ) -> None:
        self._server_id = server_id
        self._handlers = handlers
        self._faults = faults
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering: dict[bytes, asyncio.Task[None]] = {}
        self._running = 0
        self._closed = False

    def answer(self, message: Message, method: str) -> None:
        """Answer a request of the server, later and without fail."""
        request_id = message.id_raw or b"null"
        if method == methods.PING:
            self.spawn(self._send(_result_frame(request_id, b"{}")))
        elif method not in self._handlers:
            self.spawn(self._send(_error_frame(request_id, METHOD_NOT_FOUND, "Method not found")))
        elif self._running >= _MAX_RUNNING:
            self._faults.count("too many requests at once")
            self.spawn(self._send(_error_frame(request_id, INTERNAL_ERROR, "Too many requests at once")))
        else:
            task = self.spawn(self._serve(method, request_id, message.params))
            if task is not None:
                self._answering[request_id] = task
                task.add_done_callback(lambda done: self._answered(request_id, done))

    def take_notification(self, method: str, params: bytes | None) -> None:
        """Pass a notification on to its handler, if there is one."""
        if method == methods.CANCELLED:
            self._cancel(params)
        if method not in self._handlers:
            return
        if self._running >= _MAX_RUNNING:
            self._faults.count("too many notifications at once")
            return
        self.spawn(self._notify(method, params))

    async def deliver(self, method: str, params: bytes | None) -> None:
        """Run the handler of a notification to its end, if there is one: for what must not be lost in a flood."""
        if method in self._handlers:
            await self._notify(method, params)

    async def fulfil(self, asked: Mapping[str, InputRequest], deadline_ns: int) -> dict[str, Any]:
        """Answer the questions of a request that takes several rounds, all of them at once.

        Raises
        ------
        InputRequiredError
            A question has no handler, or its handler failed; the others were cancelled.
        DeadlineExceededError
            The answers were not there by the deadline, of :func:`time.monotonic_ns`.
        """
        if not asked:
            return {}
        waiting = asyncio.timeout(remaining_s(deadline_ns))
        try:
            async with waiting:
                return await self._fulfil(asked)
        except TimeoutError:
            if not waiting.expired():
                raise
            raise DeadlineExceededError(
                "the server asked for input, and it was not there within the deadline",
                server_id=self._server_id,
                delivery="answered",
            ) from None

    async def _fulfil(self, asked: Mapping[str, InputRequest]) -> dict[str, Any]:
        for question in asked.values():
            if question.method not in methods.INPUT_METHODS or question.method not in self._handlers:
                raise self._unanswered(f"asks for {question.method[:60]!r}, which has no handler")
        tasks = {key: asyncio.ensure_future(self._answer_question(each)) for key, each in asked.items()}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            # A handler may take its time with being cancelled, but not longer than its call.
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {key: task.result() for key, task in tasks.items()}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run work that must end with the session; ``None`` if that has ended."""
        if self._closed:
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> list[asyncio.Task[None]]:
        """Cancel everything; returns the tasks that are ending. Nothing starts after this."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _serve(self, method: str, request_id: bytes, params: bytes | None) -> None:
        self._running += 1
        try:
            result = await self._handlers[method](self._server_id, orjson.loads(params or b"{}"))
            frame = _result_frame(request_id, msgspec.json.encode({} if result is None else result))
        except RpcError as error:
            frame = _error_frame(request_id, error.code, error.message, error.data)
        except Exception:
            # A user's handler may raise anything; it must cost the server one error reply and nothing else.
            _log.exception("the handler of %s failed", method)
            frame = _error_frame(request_id, INTERNAL_ERROR, "The client's handler failed")
        finally:
            self._running -= 1
        await self._send(frame)

    async def _notify(self, method: str, params: bytes | None) -> None:
        self._running += 1
        try:
            await self._handlers[method](self._server_id, orjson.loads(params or b"{}"))
        except Exception:
            _log.exception("the handler of %s failed", method)
        finally:
            self._running -= 1

    async def _answer_question(self, question: InputRequest) -> Any:
        try:
            answer = await self._handlers[question.method](self._server_id, question.params)
            return {} if answer is None else msgspec.Raw(msgspec.json.encode(answer))
        except RpcError as error:
            raise self._unanswered(f"asks for {question.method}, which its handler refused: {error.message}") from None
        except Exception as error:
            _log.exception("the handler of %s failed", question.method)
            raise self._unanswered(f"asks for {question.method}, and its handler failed") from error

    def _unanswered(self, what: str) -> InputRequiredError:
        return InputRequiredError(
            f"the server {what}", server_id=self._server_id, hint="pass handlers={method: handler} to the manager"
        )

    def _cancel(self, params: bytes | None) -> None:
        """End the handler of a request that the server gave up (2025-11-25, basic/utilities/cancellation)."""
        try:
            request_id = bytes(_cancelled_decoder.decode(params or b"{}").request_id)
        except (msgspec.DecodeError, RecursionError):
            self._faults.count("malformed cancellation")
            return
        task = self._answering.get(request_id)
        if task is not None:
            task.cancel()

    def _answered(self, request_id: bytes, task: asyncio.Task[None]) -> None:
        if self._answering.get(request_id) is task:
            del self._answering[request_id]


def _result_frame(request_id: bytes, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"result":' + result + b"}"


def _error_frame(request_id: bytes, code: int, message: str, data: object = None) -> bytes:
    error = {"code": code, "message": message, **({} if data is None else {"data": data})}
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"error":' + msgspec.json.encode(error) + b"}"
