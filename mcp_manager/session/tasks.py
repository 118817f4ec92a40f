"""Calls that become tasks: following a task to its end, so that the caller sees an ordinary call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from random import random
from typing import Any, Final, NoReturn, Protocol

import msgspec

from mcp_manager._core.jsonrpc import ERROR, FrameError, Message, scan_reply
from mcp_manager.errors import (
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    OverloadedError,
    ProtocolError,
    ServerExitedError,
    SessionLostError,
    TaskError,
)
from mcp_manager.protocol.multi_round import COMPLETE, MAX_QUESTIONS, MAX_ROUNDS, MalformedResult, result_type
from mcp_manager.protocol.tasks import (
    TaskState,
    poll_delay_s,
    read_created_task,
    read_task,
    task_params,
    with_task,
)
from mcp_manager.session.server_requests import ServerRequests
from mcp_manager.transports.base import CallListener, put_off

__all__ = ["TaskFollower"]

_CALL_TOOL_RAW: Final = b'"tools/call"'
_GET_RAW: Final = b'"tasks/get"'
_RESULT_RAW: Final = b'"tasks/result"'
_UPDATE_RAW: Final = b'"tasks/update"'
_CANCEL_RAW: Final = b'"tasks/cancel"'
# Polling is safe to repeat: each poll waits this long for its answer, and this many may fail in a row.
_POLL_NS: Final = 30 * 10**9
_MAX_FAILED_POLLS: Final = 5
_CANCEL_NS: Final = 2 * 10**9


class _Send(Protocol):
    def __call__(
        self, method_raw: bytes, params: bytes, deadline_ns: int, listener: CallListener | None = None
    ) -> Awaitable[Message]: ...


class TaskFollower:
    """Follow the tasks of one session.

    Parameters
    ----------
    server_id
        Names the server in errors.
    send
        ``await send(method_raw, params, deadline_ns, listener)`` sends a request and returns its reply.
    requests
        Answers a task's requests for input, and runs the cancellation of tasks in the background.
    pause
        ``await pause(seconds)`` waits, or raises :class:`ConnectionLostError` if the session ends first.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = ("_clock", "_fulfil", "_pause", "_send", "_server_id", "_spawn")

    def __init__(
        self,
        server_id: str,
        send: _Send,
        requests: ServerRequests,
        pause: Callable[[float], Awaitable[None]],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._server_id = server_id
        self._send = send
        self._fulfil = requests.fulfil
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] = requests.spawn
        self._pause = pause
        self._clock = clock

    async def follow(
        self, created: bytes | memoryview, deadline_ns: int, listener: CallListener | None = None
    ) -> Message:
        """Poll the task that a call became, give it the input it asks for, and return the reply of the call (SEP-2663).

        After any failure, cancellation included, the server is asked to cancel the task.

        Parameters
        ----------
        created
            The result that announced the task.
        deadline_ns
            The deadline of the call, a time of :func:`time.monotonic_ns`; 0 for none.
        listener
            That of the call: it may answer what the task asks.

        Raises
        ------
        TaskError
            The server cancelled the task.
        DeadlineExceededError
            The deadline passed first.
        CallError
            The task can no longer be polled, its state is malformed, or it asks for input that no handler gives. The
            delivery is never ``not_sent`` or ``rejected``, because the server has accepted the call.
        """
        state = self._read(created)
        try:
            final = await self._follow(state, deadline_ns, listener)
        except BaseException as error:
            self._give_up(state.task_id)
            self._raise_for_call(error)
        if final is None:
            raise TaskError("the call became a task, and the server cancelled it", server_id=self._server_id)
        return final

    async def run(
        self, params: bytes | None, deadline_ns: int, listener: CallListener | None = None, *, can_cancel: bool
    ) -> Message | None:
        """Call a tool that can be called only as a task, and return its reply (2025-11-25, basic/utilities/tasks).

        Raises as :meth:`follow`, and the errors of the call itself.

        Parameters
        ----------
        params
            The params of the call.
        deadline_ns
            The deadline of the call, a time of :func:`time.monotonic_ns`; 0 for none.
        listener
            That of the call: it takes what the server sends for the task.
        can_cancel
            Whether the server can cancel tasks.

        Returns
        -------
        Message or None
            ``None`` if the params are not an object, so that they cannot request a task.
        """
        try:
            wanted = with_task(params)
        except (msgspec.DecodeError, RecursionError):
            return None
        reply = await self._send(_CALL_TOOL_RAW, wanted, deadline_ns, listener)
        if reply.kind == ERROR:
            return reply
        try:
            state = read_created_task(reply.result_buffer or b"null")
        except MalformedResult as error:
            raise self._protocol_error(str(error)) from None
        if state is None:
            return reply
        try:
            while state.status == "working":
                answer = await self._poll(state, deadline_ns)
                if answer.kind == ERROR:
                    return answer
                state = self._read(answer.result_buffer)
            # In any other state tasks/result waits for the result; while it waits, the server can request input.
            return await self._send(_RESULT_RAW, task_params(state.task_id), deadline_ns, listener)
        except BaseException as error:
            if can_cancel:
                self._give_up(state.task_id)
            self._raise_for_call(error)

    async def _follow(self, state: TaskState, deadline_ns: int, listener: CallListener | None) -> Message | None:
        """Return the reply with which a task ends, ``None`` if the server cancelled it."""
        answered: set[str] = set()
        rounds = 0
        while True:
            if state.status == "cancelled":
                return None
            if state.status == "completed" and state.result:
                self._check_complete(bytes(state.result))
                return self._final(b"result", state.result)
            if state.status == "failed" and state.error:
                return self._final(b"error", state.error)
            if state.status == "input_required":
                # The state may repeat a request for input; each is answered once (SEP-2663, task update requests).
                asked = {key: each for key, each in state.input_requests.items() if key not in answered}
                if asked:
                    rounds += 1
                    self._check_bounds(len(asked), rounds)
                    responses = await self._fulfil(asked, deadline_ns, listener)
                    update = task_params(state.task_id, inputResponses=responses)
                    until_ns = put_off(listener, deadline_ns)
                    reply = await self._send_with_retries(_UPDATE_RAW, update, until_ns)
                    if reply.kind == ERROR:
                        # The task would wait for ever for the answers that the server refused.
                        self._give_up(state.task_id)
                        return reply
                    answered.update(asked)
            reply = await self._poll(state, put_off(listener, deadline_ns))
            if reply.kind == ERROR:
                return reply
            state = self._read(reply.result_buffer)
            if (state.status == "completed" and not state.result) or (state.status == "failed" and not state.error):
                raise self._protocol_error(f"the task is {state.status}, but has no result and no error")

    def _check_complete(self, result: bytes) -> None:
        """Raise :class:`ProtocolError` unless the result of a completed task is complete itself."""
        try:
            kind = result_type(result)
        except MalformedResult as error:
            raise self._protocol_error(str(error)) from None
        if kind != COMPLETE:
            raise self._protocol_error(f"the task is completed, but its result has the type {kind[:40]!r}")

    def _check_bounds(self, questions: int, rounds: int) -> None:
        """Apply the limits of multi-round requests to a task."""
        if questions > MAX_QUESTIONS:
            raise self._protocol_error(
                f"the task asked {questions} questions at once; at most {MAX_QUESTIONS} are allowed"
            )
        if rounds > MAX_ROUNDS:
            raise InputRequiredError(
                f"the task asked for input {MAX_ROUNDS} times without ending", server_id=self._server_id
            )

    async def _poll(self, state: TaskState, deadline_ns: int) -> Message:
        """Wait as long as the server suggests, then request the task's state."""
        await self._wait(poll_delay_s(state, random()), deadline_ns)
        return await self._send_with_retries(_GET_RAW, task_params(state.task_id), deadline_ns)

    async def _send_with_retries(self, method_raw: bytes, params: bytes, deadline_ns: int) -> Message:
        """Send a request about the task, again after a failure of the connection: the task goes on in any case."""
        failures = 0
        while True:
            bound_ns = self._clock() + _POLL_NS
            until_ns = min(bound_ns, deadline_ns) if deadline_ns else bound_ns
            try:
                return await self._send(method_raw, params, until_ns)
            except ServerExitedError:
                raise
            except (ConnectError, ConnectionLostError, OverloadedError, DeadlineExceededError) as error:
                failures += 1
                if failures >= _MAX_FAILED_POLLS:
                    raise
                retry_s = error.retry_after_s if error.retry_after_s is not None else min(0.1 * 2.0**failures, 5.0)
            await self._wait(retry_s * (0.5 + random()), deadline_ns)

    async def _wait(self, delay_s: float, deadline_ns: int) -> None:
        if not deadline_ns:
            await self._pause(delay_s)
            return
        left_s = max(0, deadline_ns - self._clock()) / 1e9
        if left_s > delay_s:
            await self._pause(delay_s)
            return
        await self._pause(left_s)
        raise DeadlineExceededError(
            "the call became a task, which did not end within the deadline",
            server_id=self._server_id,
            delivery="unknown",
        )

    def _give_up(self, task_id: str) -> None:
        self._spawn(self._cancel(task_id))

    async def _cancel(self, task_id: str) -> None:
        try:
            await self._send(_CANCEL_RAW, task_params(task_id), self._clock() + _CANCEL_NS)
        except CallError:
            # Nobody depends on the cancellation: the task ends by itself, or when its time to live is over.
            return

    def _read(self, task: bytes | memoryview | None) -> TaskState:
        try:
            return read_task(task or b"null")
        except MalformedResult as error:
            raise self._protocol_error(str(error)) from None

    def _final(self, member: bytes, value: bytes) -> Message:
        try:
            return scan_reply(b'{"jsonrpc":"2.0","id":0,"' + member + b'":' + bytes(value) + b"}")
        except FrameError as error:
            raise self._protocol_error(f"the outcome of the task is malformed: {error}") from None

    def _protocol_error(self, message: str) -> ProtocolError:
        return ProtocolError(message, server_id=self._server_id, delivery="answered")

    def _raise_for_call(self, error: BaseException) -> NoReturn:
        """Raise an error for the call, whose delivery shows that the server has accepted the call."""
        if isinstance(error, SessionLostError):
            # A SessionLostError would have the call sent again on the next session.
            raise ConnectionLostError(
                f"the call became a task, which is out of reach: {error.message}",
                server_id=self._server_id,
                delivery="unknown",
            ) from None
        if isinstance(error, CallError) and error.delivery in ("not_sent", "rejected"):
            raise error.for_caller("unknown") from None
        try:
            raise error
        finally:
            # Its traceback holds this frame.
            del error
