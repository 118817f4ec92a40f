"""The ``subscriptions/listen`` stream of one stateless session (2026-07-28, basic/patterns/subscriptions)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.backoff import backoff_delay
from mcp_manager.errors import CallError, ConnectionLostError, DeadlineExceededError
from mcp_manager.protocol import methods
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.protocol.subscriptions import (
    CHANGE_KINDS,
    Interest,
    read_acknowledged,
    read_cancelled_id,
    read_subscription_id,
)
from mcp_manager.runtime.background import background_task
from mcp_manager.runtime.deadline_timer import remaining_s
from mcp_manager.session.template import SessionTemplate

__all__ = ["Listening", "Spawn"]

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None]
"""``spawn(work)`` runs work in a task that ends with the session at the latest; ``None`` if the session has ended."""

_log = logging.getLogger(__name__)

_NOTHING: Final = Interest()
# Refusals that are final: the same request would be refused again.
_FINAL_REFUSALS: Final = frozenset({METHOD_NOT_FOUND, MISSING_CAPABILITY})
_CHANGES: Final = frozenset({*CHANGE_KINDS, methods.RESOURCE_UPDATED})


class _Stream:
    """One ``subscriptions/listen`` request under way."""

    __slots__ = ("acknowledged", "interest", "request_id", "since", "task")

    def __init__(self, request_id: int, interest: Interest, task: asyncio.Task[Message], since: float) -> None:
        self.request_id = request_id
        self.interest = interest
        self.task = task
        self.since = since
        self.acknowledged: asyncio.Future[Interest] = asyncio.get_running_loop().create_future()


class _Refused(Exception):
    """The server answered ``subscriptions/listen`` with an error."""

    def __init__(self, error: bytes, code: int | None) -> None:
        super().__init__(code)
        self.error = error
        self.code = code


class Listening:
    """Keep one session's stream of notifications open, with exactly the subscriptions that are wanted.

    A stream that ends is opened again after a jittered backoff delay, and whatever may have changed in between is
    reported as changed. If the wanted subscriptions change, a new stream is opened before the old one is closed.

    Parameters
    ----------
    template
        The template of the server's sessions: it knows what is wanted, and the delays before a stream is opened again.
    number
        The number of the instance that the session belongs to.
    offered
        The kinds of list changes for which the server declares notifications.
    ids
        Numbers the session's requests.
    send
        ``await send(params, request_id)`` sends the request, and returns the reply that ends the stream.
    catch_up
        ``catch_up(interest)`` treats as changed whatever may have changed while there was no stream.
    """

    def __init__(
        self,
        template: SessionTemplate,
        number: int,
        offered: frozenset[str],
        ids: RequestIds,
        send: Callable[[bytes, int], Coroutine[Any, Any, Message]],
        catch_up: Callable[[Interest], None],
    ) -> None:
        self._containment = template.containment
        self._server_id = template.server_id
        self._index = number
        self._subscriptions = template.knowledge.subscriptions
        self._offered = offered
        self._ids = ids
        self._send = send
        self._catch_up = catch_up
        self._template = template
        self._faults = template.knowledge.faults
        self._streams: dict[int, _Stream] = {}
        self._current: _Stream | None = None
        self._cancelled_id = -1
        self._honoured = _NOTHING
        self._refused: Interest | None = None
        self._failures = 0
        self._woken = asyncio.Event()
        self._spawn: Spawn | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiters: dict[str, list[asyncio.Future[bytes | None]]] = {}

    def start(self, spawn: Spawn) -> None:
        """Listen whenever anything is wanted, in a task of ``spawn``; the owner of that task cancels it."""
        self._spawn = spawn
        self._subscriptions.watch(self._wake)
        self._wake()

    def close(self) -> None:
        """Open no more streams, and fail the waiting callers; idempotent."""
        self._subscriptions.unwatch(self._wake)
        self._spawn = None
        self._release(self._waiters.keys(), self._stopped())

    def _wake(self) -> None:
        self._woken.set()
        self._release([uri for uri in self._waiters if not self._subscriptions.wants(uri)], _ENDED)
        if self._task is None and self._spawn is not None and self._wanted():
            self._task = self._spawn(self._run())

    async def _run(self) -> None:
        """Listen until cancelled, then end every stream."""
        try:
            while True:
                try:
                    await self._step()
                except Exception as error:
                    # An unexpected failure must not end all subscriptions.
                    self._containment.failure(error, "unknown")
                    await self._back_off()
        finally:
            streams = [stream.task for stream in self._streams.values()]
            for task in streams:
                task.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    def take(self, method: str, params: bytes | None) -> bool:
        """Take a notification that may concern a stream; tell whether nothing else needs to see it."""
        if method == methods.SUBSCRIPTION_ACKNOWLEDGED:
            self._take_acknowledgement(params)
            return True
        if method == methods.CANCELLED:
            stream = self._streams.get(_as_int(read_cancelled_id(params)))
            if stream is None:
                return False
            self._cancelled_id = stream.request_id
            stream.task.cancel()
            return True
        if method in _CHANGES:
            stream = self._streams.get(_as_int(read_subscription_id(params)))
            if stream is not None and not stream.acknowledged.done():
                self._faults.count("a notification before its subscription was acknowledged", method)
                stream.acknowledged.set_result(stream.interest)
        return False

    def has_ended(self, request_id: int) -> bool:
        """Tell whether the server has cancelled the stream of this request, so that we need not cancel it."""
        return request_id == self._cancelled_id

    async def subscribe(self, uri: str, deadline_ns: int) -> bytes | None:
        """Subscribe to a resource, and wait until the server acknowledges or refuses that.

        After a failure or refusal the resource is not subscribed, unless another caller has subscribed to it.

        Parameters
        ----------
        uri
            The resource.
        deadline_ns
            A time of :func:`time.monotonic_ns`.

        Returns
        -------
        bytes or None
            ``None`` if the server agreed, else the JSON-RPC error object with which it refused.

        Raises
        ------
        DeadlineExceededError
            The deadline passed first.
        CallError
            No stream could be opened, or the session ended.
        """
        claim = self._subscriptions.claim(uri)
        agreed = False
        try:
            error = await self._await_agreement(uri, deadline_ns)
            agreed = error is None
            return error
        finally:
            self._subscriptions.settle(uri, claim, agreed=agreed)

    async def _await_agreement(self, uri: str, deadline_ns: int) -> bytes | None:
        """Wait until the server has agreed to send updates of a wanted resource; see :meth:`subscribe`."""
        current = self._current
        if current is not None and not current.task.done() and uri in current.interest.uris:
            return None if uri in self._honoured.uris else _NOT_HONOURED
        if self._spawn is None:
            raise self._stopped()
        self._refused = None
        waiter: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(uri, []).append(waiter)
        self._wake()
        waiting = asyncio.timeout(remaining_s(deadline_ns))
        try:
            async with waiting:
                return await waiter
        except TimeoutError as error:
            if isinstance(error, CallError) or not waiting.expired():
                raise
            raise DeadlineExceededError(
                "the subscription was not acknowledged within the deadline",
                server_id=self._server_id,
                delivery="unknown",
            ) from None
        finally:
            waiters = self._waiters.get(uri, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(uri, None)

    def unsubscribe(self, uri: str) -> None:
        """Unsubscribe from a resource."""
        self._subscriptions.discard(uri)

    async def _step(self) -> None:
        """Open, replace or close the stream if that is due, or wait until it is."""
        self._woken.clear()
        current = self._current
        if current is not None and current.task.done():
            self._note_end(current)
            await self._back_off()
            return
        wanted = self._wanted()
        if wanted == (current.interest if current is not None else _NOTHING) or wanted == self._refused:
            await self._wait(current)
            return
        self._refused = None
        if not wanted:
            self._current, self._honoured = None, _NOTHING
            self._subscriptions.heard.pop(self._index, None)
            if current is not None:
                await self._close(current)
            return
        await self._open(wanted)

    def _wanted(self) -> Interest:
        wanted = self._subscriptions.wanted
        return Interest(wanted.kinds & self._offered, wanted.uris)

    async def _wait(self, stream: _Stream | None) -> None:
        woken = background_task(self._woken.wait(), "wait for interest")
        try:
            await asyncio.wait({woken} if stream is None else {woken, stream.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    async def _back_off(self) -> None:
        restart = self._template.config.restart
        delay_s = backoff_delay(self._failures, restart.initial_s, restart.max_s, restart.jitter, random.random())
        self._failures += 1
        with contextlib.suppress(TimeoutError):
            # A new subscription does not wait for the backoff of earlier failures.
            async with asyncio.timeout(delay_s):
                await self._woken.wait()

    async def _open(self, wanted: Interest) -> None:
        """Open a stream for what is wanted; once the server acknowledges it, close the previous stream."""
        request_id = self._ids.take()
        task = background_task(self._send(wanted.params(), request_id), "subscribe")
        stream = _Stream(request_id, wanted, task, asyncio.get_running_loop().time())
        self._streams[request_id] = stream
        try:
            honoured = await self._agreed(stream)
        except _Refused as refusal:
            self._faults.count("subscriptions/listen was refused", f"JSON-RPC error {refusal.code}")
            self._release(wanted.uris, refusal.error)
            if refusal.code in _FINAL_REFUSALS:
                self._refused = wanted
                return
        except CallError as error:
            _log.debug("server %r: the subscription failed: %s", self._server_id, error)
            self._release(wanted.uris, error)
        else:
            await self._take_over(stream, honoured)
            return
        await self._back_off()

    async def _agreed(self, stream: _Stream) -> Interest:
        """Wait until a stream is acknowledged; raises :class:`_Refused` or :class:`CallError` if it is not."""
        either: set[asyncio.Future[Any]] = {stream.acknowledged, stream.task}
        await asyncio.wait(
            either,
            timeout=self._template.config.connect_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if stream.acknowledged.done():
            return stream.acknowledged.result()
        if not stream.task.done():
            await self._close(stream)
            self._faults.count("a subscription was not acknowledged")
            raise ConnectionLostError("the subscription was not acknowledged", server_id=self._server_id)
        self._streams.pop(stream.request_id, None)
        if stream.task.cancelled():
            raise ConnectionLostError("the server cancelled the subscription", server_id=self._server_id)
        reply = stream.task.result()
        if reply.kind == ERROR:
            raise _Refused(reply.error or b"{}", reply.error_code)
        raise ConnectionLostError("the subscription ended before it was acknowledged", server_id=self._server_id)

    async def _take_over(self, stream: _Stream, honoured: Interest) -> None:
        """Make an acknowledged stream the current one."""
        before, self._current = self._current, stream
        has_gap = before is None or before.task.done()
        heard = self._subscriptions.heard.get(self._index, _NOTHING)
        began = honoured.kinds - self._honoured.kinds
        self._honoured = self._subscriptions.heard[self._index] = honoured
        self._subscriptions.began(began)
        if has_gap and heard:
            self._catch_up(heard & honoured)
        self._release(honoured.uris, None)
        self._release((stream.interest - honoured).uris, _NOT_HONOURED)
        if before is not None:
            await self._close(before)

    def _note_end(self, stream: _Stream) -> None:
        """Note and log that the current stream has ended, and with it all its subscriptions."""
        self._current, self._honoured = None, _NOTHING
        self._streams.pop(stream.request_id, None)
        if asyncio.get_running_loop().time() - stream.since >= self._template.config.restart.stable_after_s:
            self._failures = 0
        if stream.task.cancelled():
            reason = "cancelled by the server"
        elif (error := stream.task.exception()) is not None:
            reason = str(error)
        else:
            reply = stream.task.result()
            reason = "ended by the server"
            if reply.kind == ERROR:
                reason = error_text(reply.error or b"", self._faults.secrets)
        _log.debug("server %r: the subscription stream ended: %s", self._server_id, reason)

    async def _close(self, stream: _Stream) -> None:
        stream.task.cancel()
        await asyncio.wait({stream.task})
        self._streams.pop(stream.request_id, None)
        if not stream.task.cancelled():
            # It ended by itself at the same moment; retrieving its exception keeps asyncio from logging it.
            stream.task.exception()

    def _take_acknowledgement(self, params: bytes | None) -> None:
        subscription_id = read_subscription_id(params)
        stream = self._streams.get(_as_int(subscription_id))
        if stream is None and subscription_id is None:
            waiting = [each for each in self._streams.values() if not each.acknowledged.done()]
            stream = waiting[0] if len(waiting) == 1 else None
        if stream is None:
            self._faults.count("an acknowledgement of an unknown subscription")
        elif not stream.acknowledged.done():
            stream.acknowledged.set_result(read_acknowledged(params, stream.interest))

    def _release(self, uris: Collection[str], outcome: bytes | CallError | None) -> None:
        """Pass on the outcome of a subscription to the callers that wait for it; ``None`` means success."""
        for uri in list(uris):
            for waiter in self._waiters.pop(uri, ()):
                if waiter.done():
                    continue
                if isinstance(outcome, CallError):
                    waiter.set_exception(outcome.for_caller(outcome.delivery))
                else:
                    waiter.set_result(outcome)

    def _stopped(self) -> CallError:
        return ConnectionLostError("the server was stopped during the call", server_id=self._server_id)


def _as_int(request_id: int | str | None) -> int:
    """Return a request id as the number that we sent, -1 if it cannot be one of ours."""
    if isinstance(request_id, str):
        return int(request_id) if request_id.isascii() and request_id.isdigit() and len(request_id) < 20 else -1
    return -1 if request_id is None else request_id


_NOT_HONOURED: Final = b'{"code":%d,"message":"The server does not offer updates of this resource"}' % INVALID_PARAMS
_ENDED: Final = b'{"code":%d,"message":"Unsubscribed before the server acknowledged the subscription"}' % INVALID_PARAMS
