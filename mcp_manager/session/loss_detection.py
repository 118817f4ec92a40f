"""The detection of a session that its server has lost, from what it refuses (2025-11-25, session management)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import orjson

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.errors import AuthError, CallError, SessionLostError
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.protocol.safety import safety_of
from mcp_manager.protocol.session_loss import (
    UNANSWERED,
    UNASKED,
    Refusal,
    may_mean_loss,
    needs_second_opinion,
    proves_unexecuted,
)
from mcp_manager.session.life_check import LifeCheck
from mcp_manager.transports.base import Exchange, Request, Sendable, Transport

__all__ = ["LossDetection", "ping", "refusal_of"]

_PING_RAW: Final = b'"ping"'


class LossDetection:
    """Watch what the server refuses on one session of the handshake era, and check whether the session is lost.

    A server that has lost a session should answer 404. Many answer something else, and some answer 404 about a single
    request. So no refusal is proof by itself: a ping that is refused as well decides; see :class:`LifeCheck`.

    Parameters
    ----------
    server_id
        Names the server in errors.
    transport, ids
        Those of the session.
    timeout_s
        Returns how many seconds to wait for the answer to a ping.
    listing
        A method that lists something the server offers, as JSON, to send in place of pings; ``None`` if it offers none.
    spawn
        Runs work in a task that ends with the session.
    on_lost
        Called once, with the error for callers, when the session turns out to be lost.
    """

    __slots__ = ("_answers_pings", "_ids", "_life", "_listing", "_server_id", "_timeout_s", "_transport")

    def __init__(
        self,
        server_id: str,
        transport: Transport,
        ids: RequestIds,
        timeout_s: Callable[[], float],
        listing: bytes | None,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        on_lost: Callable[[SessionLostError], None],
    ) -> None:
        self._server_id = server_id
        self._transport = transport
        self._ids = ids
        self._timeout_s = timeout_s
        self._listing = listing
        self._answers_pings: bool | None = None
        self._life = LifeCheck(
            self._sign_of_life,
            spawn,
            lambda refusal: on_lost(self._lost(refusal)),
            time.monotonic_ns,
        )

    async def watched(self, request: Sendable, exchange: Exchange, sending: Awaitable[Message]) -> Message:
        """Return the reply to a request, or raise its error, unless it was refused because the session is lost.

        Parameters
        ----------
        request, exchange
            The request and its exchange.
        sending
            Awaited for the reply.

        Raises
        ------
        SessionLostError
            The session is lost, and the request can be sent again: it was not executed, or is safe to repeat.
        """
        try:
            reply = await sending
        except CallError as error:
            refusal = refusal_of(error)
            if refusal is None or not await self._is_lost(refusal, request, exchange):
                raise
            if not _may_be_sent_again(refusal, request):
                raise
        else:
            if reply.kind != ERROR:
                if self._answers_pings is None and _method_of(request) == _PING_RAW:
                    self._answers_pings = True
                return reply
            refusal = _refusal_by(reply, exchange)
            if not may_mean_loss(refusal) or not await self._is_lost(refusal, request, exchange):
                return reply
            if not _may_be_sent_again(refusal, request):
                return reply
        lost = self._lost(refusal)
        if not proves_unexecuted(refusal):
            lost.delivery = "unknown"
        try:
            raise lost
        finally:
            # Its traceback holds this frame.
            del lost

    async def explained(self, error: CallError, deadline_ns: int = 0) -> CallError:
        """Return the error to raise for a refused message that has no reply: itself, or that the session is lost."""
        refusal = refusal_of(error)
        if refusal is None or not await self._life.ask(refusal, deadline_ns, is_of_request=False):
            return error
        return self._lost(refusal)

    def settle(self) -> None:
        """Note that the session is given up: refusals trigger no further ping."""
        self._life.is_lost = True

    async def is_meant_by(self, refusal: Refusal) -> bool:
        """Tell whether the session is lost, which the refusal of a stream suggests."""
        return await self._life.ask(refusal, is_of_request=False)

    async def _is_lost(self, refusal: Refusal, request: Sendable, exchange: Exchange) -> bool:
        is_of_ping = _method_of(request) == _PING_RAW
        return await self._life.ask(refusal._replace(is_of_ping=is_of_ping), exchange.deadline_ns)

    async def _sign_of_life(self, refusal: Refusal) -> Refusal | None:
        """Ping, or request a list from a server that may not know ``ping``; return as :func:`ping` does."""
        if self._answers_pings is not False:
            answer = await ping(self._transport, self._ids, self._timeout_s())
            if answer is None:
                self._answers_pings = True
                return None
            is_settled = (
                answer in (UNANSWERED, UNASKED) or self._answers_pings or not needs_second_opinion(answer, refusal)
            )
            if is_settled or self._listing is None:
                return answer
        assert self._listing is not None
        answer = await _outcome_of(self._transport, self._ids, self._listing, self._timeout_s())
        if answer is None:
            self._answers_pings = False
        return answer

    def _lost(self, refusal: Refusal) -> SessionLostError:
        is_error = refusal.code is not None and not refusal.is_status
        how = f"JSON-RPC error {refusal.code}" if is_error else f"HTTP {refusal.status}"
        return SessionLostError(f"the server no longer knows the session ({how})", server_id=self._server_id)


async def ping(transport: Transport, ids: RequestIds, timeout_s: float) -> Refusal | None:
    """Ping the server.

    Parameters
    ----------
    transport, ids
        Those of the session.
    timeout_s
        Seconds to wait for the answer.

    Returns
    -------
    Refusal or None
        ``None`` for an answer, which includes refusals that cannot mean loss. Otherwise the refusal,
        :data:`UNANSWERED`, or :data:`UNASKED` if this side could not send the ping.
    """
    return await _outcome_of(transport, ids, _PING_RAW, timeout_s)


async def _outcome_of(transport: Transport, ids: RequestIds, method_raw: bytes, timeout_s: float) -> Refusal | None:
    deadline_ns = time.monotonic_ns() + round(timeout_s * 1e9)
    exchange = Request(method_raw, None).exchange(ids.take(), deadline_ns)
    try:
        reply = await transport.exchange(exchange)
    except CallError as error:
        if error.is_local:
            return UNASKED
        return refusal_of(error) or UNANSWERED
    refusal = _refusal_by(reply, exchange) if reply.kind == ERROR else None
    return refusal if refusal is not None and may_mean_loss(refusal) else None


def refusal_of(error: CallError) -> Refusal | None:
    """Return the refusal behind an error if it may mean that the session is lost, else ``None``."""
    if error.http_status is None and error.rpc_code is None:
        return None
    challenged = isinstance(error, AuthError) and error.is_challenged
    refusal = Refusal(error.http_status or 0, error.rpc_code, error.message)
    return refusal if may_mean_loss(refusal, challenged=challenged) else None


def _refusal_by(reply: Message, exchange: Exchange) -> Refusal:
    return Refusal(exchange.status, reply.error_code, error_text(reply.error or b""))


def _may_be_sent_again(refusal: Refusal, request: Sendable) -> bool:
    if proves_unexecuted(refusal):
        return True
    method_raw = _method_of(request)
    return method_raw is not None and safety_of(orjson.loads(method_raw)) == "safe"


def _method_of(request: Sendable) -> bytes | None:
    return request.method if type(request) is Request else request.method_raw
