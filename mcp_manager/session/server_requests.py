"""The requests and notifications of one session's server: running their handlers, and replying."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import (
    CallError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    RpcError,
)
from mcp_manager.protocol import methods
from mcp_manager.protocol.answer_hints import handlers_hint, no_handler
from mcp_manager.protocol.capabilities import undeclared
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import INPUT_KEY, InputRequest
from mcp_manager.protocol.subscriptions import CHANGE_KINDS
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.runtime.deadline_timer import remaining_s
from mcp_manager.runtime.read_budget import read_budget
from mcp_manager.session.handlers import HandlerMap, TookTooLongError, outcome, start_handler
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.session.paced_line import PacedLine
from mcp_manager.transports.base import CallListener
from mcp_manager.transports.containment import Containment

__all__ = ["ServerRequests"]

_log = logging.getLogger(__name__)

# How many requests, notifications and replies of one session are handled at a time, so that a flood stays harmless.
_MAX_REQUESTS: Final = 64
_MAX_NOTIFICATIONS: Final = 64
_MAX_REPLIES: Final = 4
_NEWS_AT_ONCE: Final = 16
# The most handlers of one session that run, including those that ignore their cancellation.
_MAX_HANDLERS: Final = _MAX_REQUESTS + 1024
# Roughly how much of the loop's time a handler takes, and a reply with everything that HTTP adds to it.
_HANDLER_NS: Final = 100_000
_REPLY_NS: Final = 150_000
# The shortest interval between notifications of the same list change, because many handlers fetch the list.
_SAME_NEWS_S: Final = 0.25


class _Cancelled(msgspec.Struct, rename="camel"):
    request_id: msgspec.Raw


_cancelled_decoder = JsonDecoder(_Cancelled)
_params_decoder: JsonDecoder[Any] = JsonDecoder(Any)


class _Failed(Exception):
    """A handler gave no usable answer; the message says why, and the log has the details."""


class ServerRequests:
    """Run the handlers of one session, each in a task of its own, and send their answers.

    A handler that raises, hangs or returns something unusable affects only its own request.

    Parameters
    ----------
    containment
        Names the server, and logs what handlers raise.
    handlers
        The handlers by method; a request without one is answered with "Method not found".
    capabilities
        The capabilities that the client declares; a request that needs others is refused.
    faults
        Counts messages that break the protocol or exceed a limit.
    send
        ``await send(frame)`` sends a reply, or drops it if that fails.
    timeout_s
        Seconds a handler may take.
    context
        The context of handlers that run outside of a call; an empty one by default.
    """

    __slots__ = (
        "_answering",
        "_capabilities",
        "_closed",
        "_containment",
        "_context",
        "_faults",
        "_handlers",
        "_handling",
        "_notifications",
        "_questions",
        "_replies",
        "_send",
        "_tasks",
        "_timeout_s",
    )

    def __init__(
        self,
        containment: Containment,
        handlers: HandlerMap,
        capabilities: Mapping[str, Any],
        faults: PeerFaults,
        send: Callable[[bytes], Coroutine[Any, Any, None]],
        timeout_s: float,
        context: Context | None = None,
    ) -> None:
        self._containment = containment
        self._handlers = handlers
        self._capabilities = capabilities
        self._faults = faults
        self._send = send
        self._timeout_s = timeout_s
        self._context = context if context is not None else bare_context()
        self._answering: dict[bytes, asyncio.Task[None]] = {}
        self._closed = False
        # The following are made on first use: most servers send nothing, and they would take 2 KB per session.
        self._tasks: set[asyncio.Task[None]] | None = None
        # The tasks of handlers, including those that were cancelled and have not ended yet.
        self._handling: set[asyncio.Task[Any]] | None = None
        self._questions: asyncio.Semaphore | None = None
        self._notifications: PacedLine | None = None
        self._replies: PacedLine | None = None

    def answer(self, message: Message, method: str, listener: CallListener | None = None) -> None:
        """Start answering a request of the server; the reply follows later, also if the handler fails.

        Parameters
        ----------
        message, method
            The request, and its method.
        listener
            That of the call which the request belongs to: it answers in place of the handlers. ``None`` without one.
        """
        request_id = message.id_raw or b"null"
        if request_id == b"null":
            # 2025-11-25, basic, requests: an id must not be null, so a reply could not be matched.
            self._faults.count("a request whose id is null")
        elif method == methods.PING:
            self._reply(_result_frame(request_id, b"{}"))
        elif listener is None and method not in self._handlers:
            self._reply(_error_frame(request_id, METHOD_NOT_FOUND, no_handler(method)))
        elif request_id in self._answering:
            self._faults.count("a request with an id in use")
            self._reply(_error_frame(request_id, INVALID_REQUEST, "Invalid request: its id is in use"))
        elif len(self._answering) >= _MAX_REQUESTS or self._is_full:
            self._faults.count("too many requests at once")
            self._reply(_error_frame(request_id, INTERNAL_ERROR, "Too many requests at once"))
        else:
            task = self.spawn(self._serve(method, request_id, message.params, listener))
            read_budget().spend(_HANDLER_NS + _REPLY_NS)
            if task is not None:
                self._answering[request_id] = task
                task.add_done_callback(lambda _: self._answering.pop(request_id, None))

    def take_notification(self, method: str, params: bytes | None) -> None:
        """Start the handler of a notification, if there is one; in a flood, the oldest that wait are dropped."""
        if method == methods.CANCELLED:
            self._cancel(params)
        if method in self._handlers:
            key = _news_key(method, params)
            if self._notifications is None:
                dropped = partial(self._faults.count, "too many notifications at once")
                self._notifications = PacedLine(self.spawn, dropped, at_once=_MAX_NOTIFICATIONS, cost_ns=_HANDLER_NS)
            self._notifications.add(partial(self._notify_paced, method, params), key)

    def hand_over(self, listener: CallListener, method: str, params: bytes | None) -> None:
        """Hand a notification to the listener of the call that it belongs to."""
        if params is None or params.startswith(b"{"):
            listener.take_notification(method, params)
        else:
            self._faults.count("a notification whose params are not an object", method[:60])

    async def deliver_all(self, news: Iterable[tuple[str, bytes | None]]) -> None:
        """Run the handlers of notifications to their end; none of these is dropped."""
        slots = asyncio.Semaphore(_NEWS_AT_ONCE)

        async def deliver(method: str, params: bytes | None) -> None:
            async with slots:
                await self._notify(method, params)

        await asyncio.gather(*(deliver(method, params) for method, params in news if method in self._handlers))

    async def fulfil(
        self, asked: Mapping[str, InputRequest], deadline_ns: int, listener: CallListener | None = None
    ) -> dict[str, Any]:
        """Answer all questions of one round of a request, at the same time (2026-07-28, basic/patterns/mrtr).

        Parameters
        ----------
        asked
            The questions, by the server's keys.
        deadline_ns
            A time of :func:`time.monotonic_ns`, 0 for none.
        listener
            That of the call: if it takes messages, it answers in place of the handlers.

        Returns
        -------
        dict
            The encoded answers, by the same keys.

        Raises
        ------
        InputRequiredError
            A question has no handler, or its handler failed; the other handlers are cancelled.
        ConnectionLostError
            The session ended, and its handlers with it.
        DeadlineExceededError
            The deadline passed before all answers were there.
        """
        if not asked:
            return {}
        if listener is not None and not listener.takes_messages:
            listener = None
        stands_still = listener is not None and listener.stands_still
        waiting = asyncio.timeout(None if stands_still else remaining_s(deadline_ns))
        try:
            async with waiting:
                return await self._fulfil(asked, listener)
        except InputRequiredError:
            if self._closed:
                # The handlers did not fail: the end of the session cancelled them.
                raise self._session_ended() from None
            raise
        except TimeoutError:
            if not waiting.expired():
                raise
            raise DeadlineExceededError(
                "the server asked for input, and the handlers did not give it within the deadline",
                server_id=self._containment.server_id,
                delivery="answered",
            ) from None

    async def _fulfil(self, asked: Mapping[str, InputRequest], listener: CallListener | None) -> dict[str, Any]:
        for question in asked.values():
            has_handler = listener is not None or question.method in self._handlers
            if question.method not in methods.INPUT_METHODS or not has_handler:
                raise self._no_input(
                    f"asked for {question.method[:60]!r}, which has no handler",
                    hint=handlers_hint(question.method),
                )
        if self._closed:
            raise self._session_ended()
        tasks = {
            key: background_task(self._answer_question(key, each, listener), "answer a question")
            for key, each in asked.items()
        }
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {key: task.result() for key, task in tasks.items()}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run work in a task that ends with the session; return ``None`` if the session has ended."""
        if self._closed:
            work.close()
            return None
        if self._tasks is None:
            self._tasks = set()
        task = background_task(work, "work of a session", among=self._tasks, context=self._context.copy())
        task.add_done_callback(self._containment.read_failure)
        return task

    def close(self) -> list[asyncio.Task[Any]]:
        """Cancel everything, start nothing more, and return the tasks that still have to end.

        A handler that ignores its cancellation may never end.
        """
        self._closed = True
        for line in (self._notifications, self._replies):
            if line is not None:
                line.close()
        tasks: list[asyncio.Task[Any]] = [*(self._tasks or ()), *(self._handling or ())]
        for task in tasks:
            task.cancel()
        return tasks

    async def _serve(self, method: str, request_id: bytes, params: bytes | None, listener: CallListener | None) -> None:
        # If the server cancels the request, no reply is sent (2025-11-25, basic/utilities/cancellation).
        await self._send(await self._reply_frame(method, request_id, params, listener))

    async def _reply_frame(
        self, method: str, request_id: bytes, params: bytes | None, listener: CallListener | None
    ) -> bytes:
        try:
            given = _read_params(params)
            if given is None:
                self._faults.count("a request whose params are not an object", method[:60])
                return _error_frame(request_id, INVALID_PARAMS, "Invalid params: they must be an object")
            self._check_declared(method, given, listener)
            return _result_frame(request_id, await self._result(method, given, listener, _name_of(given)))
        except RpcError as error:
            return _error_frame(request_id, error.code, error.message, error.data)
        except _Failed as failure:
            return _error_frame(request_id, INTERNAL_ERROR, f"The client's handler {failure}")

    async def _result(self, method: str, params: dict[str, Any], listener: CallListener | None, key: str) -> bytes:
        """Run the handler of a request, or ask the listener of its call, and return the answer as JSON.

        Raises
        ------
        RpcError
            The handler refused the request.
        _Failed
            The handler gave no usable answer.
        """
        try:
            answer = await outcome(self._start(method, params, listener, key), self._timeout_s)
            result = msgspec.json.encode({} if answer is None else answer)
        except RpcError as error:
            raise _encodable(error) from None
        except TookTooLongError:
            self._tell_timeout(method)
            raise _Failed("took too long") from None
        except Exception as error:
            if self._closed:
                raise _Failed("was cancelled") from None
            # A handler may raise anything; the server gets one error reply, and nothing else is affected.
            self._containment.log(f"the handler of {method} failed", error)
            raise _Failed("failed") from None
        if not result.startswith(b"{"):
            _log.error("the handler of %s returned %s, which is not a JSON object", method, type(answer).__name__)
            raise _Failed("failed")
        return result

    def _check_declared(self, method: str, params: dict[str, Any], listener: CallListener | None = None) -> None:
        """Count a request that needs an undeclared capability, and refuse it with an :class:`RpcError`.

        The listener of a call refuses it in its own way, and may have to tell whoever made the call.
        """
        missing = undeclared(method, params, self._capabilities)
        if missing:
            self._faults.count("a request for an undeclared capability", missing)
        if missing and listener is None:
            raise RpcError(INVALID_PARAMS, f"Invalid params: the client did not declare {missing}")

    async def _notify_paced(self, method: str, params: bytes | None) -> None:
        if self._is_full:
            self._faults.count("too many notifications at once")
            return
        await self._notify(method, params)
        if method in CHANGE_KINDS:
            await asyncio.sleep(_SAME_NEWS_S)

    async def _notify(self, method: str, params: bytes | None) -> None:
        given = _read_params(params)
        if given is None:
            self._faults.count("a notification whose params are not an object", method[:60])
            return
        try:
            await outcome(self._start(method, given, None), self._timeout_s)
        except RpcError as error:
            if error.code != INVALID_PARAMS:
                _log.warning("the handler of %s failed: %s", method, self._containment.masked(str(error)))
            else:
                self._faults.count("a malformed notification", f"{method[:60]}: {error.message[:200]}")
        except TookTooLongError:
            self._tell_timeout(method)
        except Exception as error:
            self._containment.log(f"the handler of {method} failed", error)

    async def _answer_question(self, key: str, question: InputRequest, listener: CallListener | None) -> msgspec.Raw:
        if self._questions is None:
            self._questions = asyncio.Semaphore(_MAX_REQUESTS)
        try:
            if listener is None:
                # Else the request that the question belongs to said itself what can be asked.
                self._check_declared(question.method, question.params)
            async with self._questions:
                return msgspec.Raw(await self._result(question.method, question.params, listener, key))
        except RpcError as error:
            raise self._no_input(f"asked for {question.method}, which its handler refused: {error.message}") from None
        except _Failed as failure:
            raise self._no_input(
                f"asked for {question.method}, and its handler {failure}", hint="see the log for the reason"
            ) from None

    def _start(
        self, method: str, params: dict[str, Any], listener: CallListener | None, key: str = ""
    ) -> asyncio.Task[Any]:
        handler = self._handlers[method] if listener is None else partial(_ask, listener, method, key)
        context = None if listener is None or listener.context is None else listener.context.copy()
        handling = start_handler(handler, self._containment.server_id, params, context)
        if self._handling is None:
            self._handling = set()
        self._handling.add(handling)
        handling.add_done_callback(self._handling.discard)
        return handling

    @property
    def _is_full(self) -> bool:
        return self._handling is not None and len(self._handling) >= _MAX_HANDLERS

    def _tell_timeout(self, method: str) -> None:
        extra = {"event": "handler_timeout", "server_id": self._containment.server_id}
        told = "the handler of %s took more than %g s and was cancelled"
        _log.warning(told, method, self._timeout_s, extra=extra)

    def _reply(self, frame: bytes) -> None:
        if self._replies is None:
            dropped = partial(self._faults.count, "replies that the server does not read")
            self._replies = PacedLine(self.spawn, dropped, at_once=_MAX_REPLIES, cost_ns=_REPLY_NS)
        self._replies.add(partial(self._send, frame))

    def _session_ended(self) -> CallError:
        return ConnectionLostError("the server was stopped during the call", server_id=self._containment.server_id)

    def _no_input(self, what: str, hint: str = "") -> InputRequiredError:
        return InputRequiredError(f"the server {what}", server_id=self._containment.server_id, hint=hint)

    def _cancel(self, params: bytes | None) -> None:
        """Cancel the handler of a request that the server cancels (2025-11-25, basic/utilities/cancellation)."""
        try:
            request_id = bytes(_cancelled_decoder.decode(params or b"{}").request_id)
        except (msgspec.DecodeError, RecursionError):
            self._faults.count("a malformed cancellation")
            return
        task = self._answering.get(request_id)
        if task is not None:
            task.cancel()


def _ask(listener: CallListener, method: str, key: str, server_id: str, params: Any) -> Any:
    """Ask the listener of a call for the answer to a request."""
    return listener.answer(method, params, key)


def _name_of(params: Mapping[str, Any]) -> str:
    """Return the name that a server gave a question in ``_meta``, "" without one."""
    meta = params.get("_meta")
    name = meta.get(INPUT_KEY) if isinstance(meta, dict) else None
    return name if isinstance(name, str) else ""


def _news_key(method: str, params: bytes | None) -> tuple[str, bytes | None] | None:
    """Return a key that notifications with the same meaning share, ``None`` if each one counts."""
    if method in CHANGE_KINDS:
        return method, None
    return (method, params) if method == methods.RESOURCE_UPDATED else None


def _read_params(params: bytes | None) -> dict[str, Any] | None:
    try:
        given = _params_decoder.decode(params or b"{}")
    except (msgspec.DecodeError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _encodable(error: RpcError) -> RpcError:
    """Return the error that a handler raised without the parts that cannot be sent."""
    code, message, data = error.code, error.message, error.data
    if not isinstance(code, int) or not isinstance(message, str):
        _log.error("a handler raised an RpcError whose code is not an integer or whose message is not a string")
        return RpcError(INTERNAL_ERROR, "The client's handler failed")
    try:
        msgspec.json.encode([code, data])
    except Exception:
        # The server gets an answer in any case.
        _log.exception("a handler raised an RpcError whose data cannot be encoded")
        data = None
    # A message that quotes a file name may contain lone surrogates, which UTF-8 cannot encode.
    return RpcError(code, message.encode("utf-8", "replace").decode(), data)


def _result_frame(request_id: bytes, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"result":' + result + b"}"


def _error_frame(request_id: bytes, code: int, message: str, data: object = None) -> bytes:
    error = {"code": code, "message": message, **({} if data is None else {"data": data})}
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"error":' + msgspec.json.encode(error) + b"}"
