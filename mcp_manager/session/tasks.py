"""Calls that go on as tasks: followed until they have ended, so that whoever called sees a call like any other."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from random import random
from typing import Any, Final, NoReturn

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

__all__ = ["TaskFollower"]

_CALL_TOOL_RAW: Final = b'"tools/call"'
_GET_RAW: Final = b'"tasks/get"'
_RESULT_RAW: Final = b'"tasks/result"'
_UPDATE_RAW: Final = b'"tasks/update"'
_CANCEL_RAW: Final = b'"tasks/cancel"'
# To ask for a task changes nothing: it may be done again when no answer came.
_POLL_NS: Final = 30 * 10**9
_MAX_FAILED_POLLS: Final = 5
_CANCEL_NS: Final = 2 * 10**9


class TaskFollower:
    """Follow the tasks of one session.

    Parameters
    ----------
    server_id
        Names the server in errors.
    ask
        ``await ask(method_raw, params, deadline_ns)`` sends a request and returns its reply.
    fulfil
        ``await fulfil(questions, deadline_ns)`` answers what a task asks; see :meth:`ServerRequests.fulfil`.
    spawn
        Runs work that ends with the session.
    pause
        ``await pause(seconds)`` waits, or raises :class:`ConnectionLostError` when the session ends meanwhile.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = ("_ask", "_clock", "_fulfil", "_pause", "_server_id", "_spawn")

    def __init__(
        self,
        server_id: str,
        ask: Callable[[bytes, bytes, int], Awaitable[Message]],
        requests: ServerRequests,
        pause: Callable[[float], Awaitable[None]],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._server_id = server_id
        self._ask = ask
        self._fulfil = requests.fulfil
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] = requests.spawn
        self._pause = pause
        self._clock = clock

    async def follow(self, created: bytes | memoryview, deadline_ns: int) -> Message:
        """Poll a task that a call has become, answer what it asks, and return what the call would have (SEP-2663).

        Given up, by its caller or for its deadline, the server is asked to cancel it.

        Raises
        ------
        TaskError
            It was cancelled on the server's side.
        DeadlineExceededError
            It has not ended by the deadline.
        CallError
            It can be asked for no more, or asks for input that nobody has. Whatever its delivery was, that of the call
            is known no more: it left long ago.
        """
        state = self._read(created)
        try:
            final = await self._follow(state, deadline_ns)
        except BaseException as error:
            self._give_up(state.task_id)
            self._explain(error)
        if final is None:
            raise TaskError("the server cancelled the task that the call had become", server_id=self._server_id)
        return final

    async def run(self, params: bytes | None, deadline_ns: int, *, can_cancel: bool) -> Message | None:
        """Call a tool that can be called only as a task, and return its result (2025-11-25, basic/utilities/tasks).

        ``None`` for params that cannot ask for one. Raises as :meth:`follow`, and whatever the call itself meets.
        """
        try:
            wanted = with_task(params)
        except (msgspec.DecodeError, RecursionError):
            return None
        reply = await self._ask(_CALL_TOOL_RAW, wanted, deadline_ns)
        if reply.kind == ERROR:
            return reply
        try:
            state = read_created_task(reply.result_buffer or b"null")
        except MalformedResult as error:
            raise self._broken(str(error)) from None
        if state is None:
            return reply
        try:
            while state.status == "working":
                answer = await self._next(state, deadline_ns)
                if answer.kind == ERROR:
                    return answer
                state = self._read(answer.result_buffer)
            # In any other state the result is waited for here: with input required, that is how the server asks.
            return await self._ask(_RESULT_RAW, task_params(state.task_id), deadline_ns)
        except BaseException as error:
            if can_cancel:
                self._give_up(state.task_id)
            self._explain(error)

    async def _follow(self, state: TaskState, deadline_ns: int) -> Message | None:
        """Return the reply that a task ends with, ``None`` if it was cancelled."""
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
                # Each is asked once, however often it is seen (SEP-2663, task update requests).
                asked = {key: each for key, each in state.input_requests.items() if key not in answered}
                if asked:
                    rounds += 1
                    self._check_bounds(len(asked), rounds)
                    responses = await self._fulfil(asked, deadline_ns)
                    update = task_params(state.task_id, inputResponses=responses)
                    reply = await self._persist(_UPDATE_RAW, update, deadline_ns)
                    if reply.kind == ERROR:
                        # It waits for the answers that it has refused.
                        self._give_up(state.task_id)
                        return reply
                    answered.update(asked)
            reply = await self._next(state, deadline_ns)
            if reply.kind == ERROR:
                return reply
            state = self._read(reply.result_buffer)
            if (state.status == "completed" and not state.result) or (state.status == "failed" and not state.error):
                raise self._broken(f"the task is {state.status}, and says nothing of what came of it")

    def _check_complete(self, result: bytes) -> None:
        """Hold what a task has led to, to what any result is held to: it is the end."""
        try:
            kind = result_type(result)
        except MalformedResult as error:
            raise self._broken(str(error)) from None
        if kind != COMPLETE:
            raise self._broken(f"a completed task led to a result of another type: {kind[:40]!r}")

    def _check_bounds(self, questions: int, rounds: int) -> None:
        """Hold a task to what a request of several rounds is held to."""
        if questions > MAX_QUESTIONS:
            raise self._broken(f"the task asked {questions} things at once, {MAX_QUESTIONS} at most are allowed")
        if rounds > MAX_ROUNDS:
            raise InputRequiredError(
                f"the task asked for input {MAX_ROUNDS} times and was not content", server_id=self._server_id
            )

    async def _next(self, state: TaskState, deadline_ns: int) -> Message:
        """Wait as long as the server suggests, and ask for the task."""
        await self._wait(poll_delay_s(state, random()), deadline_ns)
        return await self._persist(_GET_RAW, task_params(state.task_id), deadline_ns)

    async def _persist(self, method_raw: bytes, params: bytes, deadline_ns: int) -> Message:
        """Ask, and again if no answer came, a few times: the task goes on whether it is asked for or not."""
        failures = 0
        while True:
            bound_ns = self._clock() + _POLL_NS
            asked_until = min(bound_ns, deadline_ns) if deadline_ns else bound_ns
            try:
                return await self._ask(method_raw, params, asked_until)
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
            "the task that the call had become did not end within the deadline",
            server_id=self._server_id,
            delivery="unknown",
        )

    def _give_up(self, task_id: str) -> None:
        self._spawn(self._cancel(task_id))

    async def _cancel(self, task_id: str) -> None:
        try:
            await self._ask(_CANCEL_RAW, task_params(task_id), self._clock() + _CANCEL_NS)
        except CallError:
            # A request that nobody depends on: the task ends by itself, or with its time to live.
            return

    def _read(self, task: bytes | memoryview | None) -> TaskState:
        try:
            return read_task(task or b"null")
        except MalformedResult as error:
            raise self._broken(str(error)) from None

    def _final(self, member: bytes, value: bytes) -> Message:
        try:
            return scan_reply(b'{"jsonrpc":"2.0","id":0,"' + member + b'":' + bytes(value) + b"}")
        except FrameError as error:
            raise self._broken(f"what came of the task is malformed: {error}") from None

    def _broken(self, message: str) -> ProtocolError:
        return ProtocolError(message, server_id=self._server_id, delivery="answered")

    def _explain(self, error: BaseException) -> NoReturn:
        """Raise what a failure means for the call, which was handed over long ago: nobody may take it for refused."""
        if isinstance(error, SessionLostError):
            # This one would have the call sent once more on the next session.
            raise ConnectionLostError(
                f"the task that the call had become is out of reach: {error.message}",
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
