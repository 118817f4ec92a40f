"""The last line of defence: turns every unexpected exception of one server's code into a :class:`CallError`."""

from __future__ import annotations

import asyncio
import errno
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, NoReturn

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.http_message import Exchange
from mcp_manager._core.jsonrpc import Message
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError, Delivery, McpManagerError
from mcp_manager.transports.base import LifeSigns, Transport

__all__ = ["ContainedTransport", "Containment", "is_cancelled", "is_resource_exhaustion"]

_log = logging.getLogger(__name__)

_QUOTED: Final = 200
# Each failing place in the code is logged once per server, and at most this many places.
_MOST_LOGGED: Final = 16
_EXHAUSTION: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


def is_cancelled() -> bool:
    """Return whether the running task was cancelled; if not, a ``CancelledError`` in it comes from another task."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def is_resource_exhaustion(error: BaseException) -> bool:
    """Return whether this process or its system has run out of descriptors, memory or local ports."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, OSError) and error.errno in _EXHAUSTION


class Containment:
    """Turn unexpected exceptions into call errors, and log each once with its traceback.

    Parameters
    ----------
    server_id
        Names the server in errors.
    secrets
        Masks the server's credentials.
    """

    __slots__ = ("_logged", "_secrets", "server_id")

    def __init__(self, server_id: str, secrets: Secrets) -> None:
        self.server_id: str = server_id
        self._secrets = secrets
        self._logged: set[tuple[str, str, int | None]] | None = None

    def failure(self, error: BaseException, delivery: Delivery) -> BaseException:
        """Return what callers get in place of an exception.

        Errors of this package, the cancellation of the running task, and exceptions that end the process stay as they
        are; everything else becomes a :class:`CallError`.
        """
        if isinstance(error, McpManagerError):
            return error
        if isinstance(error, asyncio.CancelledError):
            # Otherwise a task or future that this task waited for was cancelled, not this task.
            return error if is_cancelled() else self._stopped(delivery)
        if not isinstance(error, Exception):
            return error
        return self.failure_of_fault(error, delivery)

    def failure_of_fault(self, error: Exception, delivery: Delivery) -> CallError:
        """Return the call error for an unexpected exception, and log the exception."""
        self._log_once(error)
        # The text may quote a URL or anything that the server sent.
        said = self._secrets.quoted(f"{type(error).__name__}: {error}", _QUOTED)
        is_exhaustion = is_resource_exhaustion(error)
        kind: type[CallError] = CallError
        if delivery == "not_sent":
            kind = ConnectError
        elif isinstance(error, OSError):
            kind = ConnectionLostError
        failure = kind(
            f"an unexpected failure: {said}",
            server_id=self.server_id,
            delivery=delivery,
            hint="this process has run out of memory or descriptors"
            if is_exhaustion
            else "see the log for the traceback",
        )
        failure.is_local = is_exhaustion
        # The log has the masked original. A caller's traceback must not show it unmasked.
        failure.__suppress_context__ = True
        return failure

    def read_failure(self, task: asyncio.Task[Any]) -> None:
        """Retrieve the exception of a task that nobody may await, and log it unless it is an error of this package."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not isinstance(error, McpManagerError):
            self._log_once(error)

    def masked(self, text: str) -> str:
        """Return a text without the server's credentials."""
        return self._secrets.masked(text)

    def log(self, what: str, error: Exception) -> None:
        """Log an exception of a user's handler or callback, every time, with its traceback and without credentials."""
        text = self._masked_traceback(error)
        extra = {"event": "callback_failed", "server_id": self.server_id}
        _log.error("server %r: %s:\n%s", self.server_id, what, text, extra=extra)

    def _stopped(self, delivery: Delivery) -> CallError:
        return ConnectionLostError(
            "the server was stopped during the call", server_id=self.server_id, delivery=delivery
        )

    def _log_once(self, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__, limit=-1)
        place = (
            (type(error).__name__, frames[0].filename, frames[0].lineno) if frames else (type(error).__name__, "", 0)
        )
        if self._logged is None:
            self._logged = set()
        if place in self._logged or len(self._logged) >= _MOST_LOGGED:
            return
        self._logged.add(place)
        text = self._masked_traceback(error)
        _log.error(
            "server %r: an unexpected failure, which affects only this server:\n%s",
            self.server_id,
            text,
            extra={"event": "unexpected_failure", "server_id": self.server_id},
        )

    def _masked_traceback(self, error: Exception) -> str:
        return self._secrets.masked("".join(traceback.format_exception(error)))


class ContainedTransport:
    """Wrap a transport so that it raises nothing but :class:`CallError`; see :class:`Transport`."""

    __slots__ = ("_containment", "_transport")

    def __init__(self, transport: Transport, containment: Containment) -> None:
        self._transport = transport
        self._containment = containment

    @property
    def pid(self) -> int:
        """See :class:`Transport`."""
        return self._transport.pid

    @property
    def life_signs(self) -> LifeSigns | None:
        """See :class:`Transport`."""
        return self._transport.life_signs

    @property
    def has_request_streams(self) -> bool:
        """See :class:`Transport`."""
        return self._transport.has_request_streams

    @property
    def keeps_session(self) -> bool:
        """See :class:`Transport`."""
        return self._transport.keeps_session

    @property
    def last_words(self) -> str:
        """See :class:`Transport`."""
        return self._transport.last_words

    async def open(self) -> None:
        """See :meth:`Transport.open`."""
        try:
            await self._transport.open()
        except CallError:
            raise
        except BaseException as error:
            self._raise(error, "not_sent")

    def settle(self, revision: str | None) -> None:
        """See :meth:`Transport.settle`."""
        self._transport.settle(revision)

    async def listen(self) -> None:
        """See :meth:`Transport.listen`."""
        try:
            await self._transport.listen()
        except CallError:
            raise
        except BaseException as error:
            self._raise(error, "not_sent")

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> Channel | None:
        """See :meth:`Transport.channel`."""
        return self._transport.channel(session, ids, dialect)

    def landed(self, exchange: Exchange, answer: Any) -> Coroutine[Any, Any, Message]:
        """See :meth:`Transport.landed`."""
        return self._contained(partial(self._transport.landed, answer=answer), exchange)

    def exchange(self, exchange: Exchange) -> Coroutine[Any, Any, Message]:
        """See :meth:`Transport.exchange`."""
        return self._contained(self._transport.exchange, exchange)

    def exchange_lasting(self, exchange: Exchange) -> Coroutine[Any, Any, Message]:
        """See :meth:`Transport.exchange_lasting`."""
        return self._contained(self._transport.exchange_lasting, exchange)

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """See :meth:`Transport.notify`."""
        try:
            await self._transport.notify(frame, deadline_ns, fields)
        except CallError:
            raise
        except BaseException as error:
            self._raise(error, "unknown")

    def interrupt(self) -> None:
        """See :meth:`Transport.interrupt`."""
        try:
            self._transport.interrupt()
        except Exception as error:
            # The transport is being closed, which must go on in any case.
            self._containment.failure(error, "unknown")

    async def aclose(self, grace_s: float) -> None:
        """See :meth:`Transport.aclose`; a failure is logged and not raised."""
        try:
            await self._transport.aclose(grace_s)
        except BaseException as error:
            failure = self._containment.failure(error, "unknown")
            if failure is error and not isinstance(error, CallError):
                raise

    async def _contained(self, send: Callable[[Exchange], Awaitable[Message]], exchange: Exchange) -> Message:
        try:
            return await send(exchange)
        except CallError:
            raise
        except BaseException as error:
            # It may hold this exception, whose traceback holds this frame.
            del send
            self._raise(error, "unknown" if exchange.sent else "not_sent")

    def _raise(self, error: BaseException, delivery: Delivery) -> NoReturn:
        failure = self._containment.failure(error, delivery)
        try:
            if failure is error:
                raise error
            raise failure from None
        finally:
            # Its traceback holds this frame.
            del error, failure
