"""Requests of servers to clients of the handshake era: asked on a stream, answered by a message of its own."""

from __future__ import annotations

import asyncio
from secrets import token_urlsafe
from typing import Any, Final, Protocol

import msgspec

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.client import Client
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, METHOD_NOT_FOUND
from mcp_manager.protocol.methods import CANCELLED, ELICIT, LIST_ROOTS, SAMPLE

__all__ = ["Question", "Questions", "Sink"]

_KNOWN: Final = frozenset({ELICIT, SAMPLE, LIST_ROOTS})
_MOST_OF_ONE: Final = 64
_FAILED: Final = -32000
_OWN: Final = {"source": "gateway"}


class Sink(Protocol):
    """Where messages to a client go."""

    def send(self, message: bytes) -> bool:
        """Send a message; return whether the client gets it, now or when it resumes the stream."""


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = None


class _Meta(msgspec.Struct):
    progress_token: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw, name="progressToken")


class _Tokened(msgspec.Struct):
    meta: _Meta = msgspec.field(default_factory=_Meta, name="_meta")


_error_decoder = msgspec.json.Decoder(_Error)
_token_decoder = msgspec.json.Decoder(_Tokened)


class Question:
    """A request that a client has not answered yet.

    ``session`` names the session of the client, and ``sink`` is where it was asked; ``reply`` is its result, as JSON.
    """

    __slots__ = ("id", "id_raw", "params", "reply", "session", "sink")

    def __init__(self, session: str, sink: Sink, question_id: str, params: bytes) -> None:
        self.session: str = session
        self.id: str = question_id
        self.id_raw: bytes = b'"%b"' % question_id.encode("ascii")
        self.params: bytes = params
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.sink: Sink = sink

    @property
    def progress_token(self) -> bytes:
        """The progress token that the server gave, as JSON; empty without one."""
        try:
            return bytes(_token_decoder.decode(self.params).meta.progress_token)
        except msgspec.DecodeError:
            return b""

    def withdraw(self, reason: str) -> None:
        """Tell the client that nobody waits for its answer any more (2025-11-25, basic/utilities/cancellation)."""
        params = msgspec.json.encode({"requestId": self.id, "reason": reason})
        self.sink.send(messages.notification(CANCELLED, params))

    def refuse(self, reason: str) -> None:
        """End the wait with an error for the server."""
        if not self.reply.done():
            self.fail(RpcError(_FAILED, reason, _OWN))

    def fail(self, error: RpcError) -> None:
        """End the wait with an error."""
        self.reply.set_exception(error)
        # Whoever waits may be cancelled before it wakes: then nobody else retrieves it.
        self.reply.exception()


class Questions:
    """Ask clients, and find the question that an answer is for.

    Ids of questions begin with the number of the worker, and cannot be guessed.

    Parameters
    ----------
    wait_s
        Seconds that a question waits for its answer.
    worker
        The number of this worker process.
    """

    def __init__(self, wait_s: float = 300.0, worker: int = 0) -> None:
        self._wait_s = wait_s
        self._worker = worker
        self._pending: dict[str, dict[str, Question]] = {}

    async def ask(self, client: Client, sink: Sink, method: str, params: bytes) -> bytes:
        """Ask a client, which has declared that it can answer, and return the result as JSON.

        When this ends without an answer, the client is told so.

        Parameters
        ----------
        client
            Who is asked.
        sink
            The stream that the question goes to.
        method, params
            The request; ``params`` is JSON.

        Raises
        ------
        RpcError
            There is no such request; or the client refuses, does not answer in time, or is gone.
        """
        if method not in _KNOWN:
            raise RpcError(METHOD_NOT_FOUND, f"Clients cannot be asked {method}", _OWN)
        of_session = self._pending.setdefault(client.session, {})
        if len(of_session) >= _MOST_OF_ONE:
            raise RpcError(_FAILED, f"{_MOST_OF_ONE} questions to the client are not answered yet", _OWN)
        question = Question(client.session, sink, f"{self._worker}.{token_urlsafe(12)}", params)
        of_session[question.id] = question
        try:
            if not sink.send(messages.request(question.id_raw, method, params)):
                raise RpcError(_FAILED, "The client cannot be reached", _OWN)
            async with asyncio.timeout(self._wait_s):
                return await question.reply
        except TimeoutError:
            question.withdraw("timeout")
            raise RpcError(_FAILED, f"The client has not answered within {self._wait_s:g} s", _OWN) from None
        except asyncio.CancelledError:
            if question.id in of_session:
                question.withdraw("the request that it belongs to has ended")
            raise
        finally:
            self._forget(question)
            # The error that the reply holds refers to this frame.
            del question

    def answer(self, client: Client, message: Message) -> bool:
        """Take a response of a client; return whether it belongs to a question that waits."""
        found = message.id
        question = self._pending.get(client.session, {}).get(found) if isinstance(found, str) else None
        if question is None or question.reply.done():
            return False
        self._forget(question)
        if message.kind == ERROR:
            question.fail(_refusal(message.error or b"{}"))
        else:
            question.reply.set_result(message.result or b"{}")
        return True

    def awaiting(self, session: str) -> list[Question]:
        """Return the questions that a session has not answered yet."""
        return list(self._pending.get(session, {}).values())

    def end(self, sink: Sink, session: str, reason: str, *, withdraw: bool = True) -> None:
        """Refuse all questions that were asked on one stream.

        Parameters
        ----------
        sink, session
            The stream, and the session that it belongs to.
        reason
            What the server is told.
        withdraw
            Whether the client is told as well: not if it is gone.
        """
        for question in self.awaiting(session):
            if question.sink is sink:
                self._forget(question)
                if withdraw:
                    question.withdraw(reason)
                question.refuse(reason)

    def end_session(self, session: str) -> None:
        """Refuse all questions to a session that has ended."""
        for question in self.awaiting(session):
            self._forget(question)
            question.refuse("The client has ended its session")

    def _forget(self, question: Question) -> None:
        of_session = self._pending.get(question.session)
        if of_session is not None:
            of_session.pop(question.id, None)
            if not of_session:
                del self._pending[question.session]


def _refusal(error: bytes) -> RpcError:
    try:
        told = _error_decoder.decode(error)
    except msgspec.DecodeError:
        return RpcError(INTERNAL_ERROR, "The client answered with a malformed error", _OWN)
    return RpcError(told.code, told.message, told.data)
