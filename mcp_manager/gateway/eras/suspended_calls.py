"""Calls to servers of the handshake era that wait for input of a client of 2026-07-28, between two of its requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_urlsafe
from typing import Any, Final

import msgspec

from mcp_manager.calls.exchange_listener import OnMessage, ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import ANONYMOUS
from mcp_manager.gateway.eras.request_checks import missing_for, raise_for_lack_of
from mcp_manager.gateway.eras.request_state import Place
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from mcp_manager.protocol.methods import ELICIT, LIST_ROOTS, SAMPLE
from mcp_manager.protocol.multi_round import MAX_QUESTIONS, MAX_ROUNDS
from mcp_manager.runtime.background import background_task

__all__ = ["SuspendedCall", "SuspendedCalls", "Tell", "read_responses"]

_MOST_CALLS: Final = 10_000
_MOST_CALLS_OF_ONE: Final = 1_000
_MOST_BYTES: Final = 64 * 1024 * 1024
_OWN: Final = {"source": "gateway"}
# Questions that follow one another within this time reach the client together.
_TOGETHER_S: Final = 0.05
_LONGEST_KEY: Final = 128

Tell = Callable[[ServerMessage], None]
"""``tell(message)`` takes a notification of the server for the client's request that is under way."""

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Elicited(msgspec.Struct):
    action: str
    content: dict[str, msgspec.Raw] | None = None


class _Sampled(msgspec.Struct):
    role: str
    content: msgspec.Raw
    model: str | None = None


class _Roots(msgspec.Struct):
    roots: list[dict[str, msgspec.Raw]]


_ANSWERS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    ELICIT: msgspec.json.Decoder(_Elicited),
    SAMPLE: msgspec.json.Decoder(_Sampled),
    LIST_ROOTS: msgspec.json.Decoder(_Roots),
}
_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})


class _Question:
    """A question of the server that waits for its answer."""

    __slots__ = ("answer", "method", "params")

    def __init__(self, method: str, params: bytes) -> None:
        self.method = method
        self.params = params
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class SuspendedCall:
    """One call; made by :meth:`SuspendedCalls.start`.

    Attributes
    ----------
    key
        Names it in the client's ``requestState``; cannot be guessed.
    place, server_id
        What it belongs to, and the server.
    response
        The response of the server; ``None`` until it is there.
    id_raw
        The id that the response has, as JSON.
    expected
        Input that came with the call itself, for questions whose keys the client knows already.
    """

    __slots__ = (
        "_asked",
        "_calls",
        "_capabilities",
        "_changed",
        "_is_ended",
        "_kept",
        "_missing",
        "_questions",
        "_task",
        "_tell",
        "_timer",
        "expected",
        "id_raw",
        "key",
        "place",
        "response",
        "server_id",
    )

    def __init__(
        self, calls: SuspendedCalls, place: Place, server_id: str, capabilities: Mapping[str, Any], tell: Tell
    ) -> None:
        self.key: str = token_urlsafe(16)
        self.place: Place = place
        self.server_id: str = server_id
        self.response: bytes | None = None
        self._calls = calls
        self._capabilities = capabilities
        self._tell: Tell | None = tell
        self._questions: dict[str, _Question] = {}
        self._asked = 0
        self._kept = 0
        self._is_ended = False
        self.expected: dict[str, msgspec.Raw] = {}
        self.id_raw: bytes = b""
        self._missing: dict[str, Any] | None = None
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self, send: Callable[[OnMessage], Awaitable[bytes]], among: set[asyncio.Task[Any]]) -> None:
        """Send the call, in a task that outlives the client's request."""
        self._task = background_task(self._run(send), "a call that may wait for input", among=among)

    async def come(self) -> bytes | None:
        """Wait until the server asks or answers, and return its response; ``None`` if it asks.

        If this is cancelled, because the client is gone, the call is cancelled at the server.

        Raises
        ------
        RpcError
            -32021: the call has failed after the server asked for what the client does not declare.
        """
        try:
            while self.response is None and not self._questions:
                if self._is_ended:
                    raise RpcError(INTERNAL_ERROR, "The gateway has ended this call", _OWN)
                self._changed.clear()
                await self._changed.wait()
                await self._gather()
        except BaseException:
            self.end()
            raise
        self._tell = None
        if self.response is None:
            return None
        self.end()
        if self._missing is not None:
            raise_for_lack_of(self._missing, self.response)
        return self.response

    def resume(self, responses: bytes | None, tell: Tell) -> None:
        """Give the server the client's input; what is missing or malformed is asked for again.

        Parameters
        ----------
        responses
            ``inputResponses`` of the client as JSON, if it has sent any.
        tell
            Takes notifications for the request that brings the input.

        Raises
        ------
        RpcError
            ``inputResponses`` is not an object, or another request follows the call already.
        """
        if self._tell is not None:
            raise RpcError(INVALID_REQUEST, "Invalid request: another request continues this call already", _OWN)
        given = read_responses(responses)
        self._tell = tell
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key, question in list(self._questions.items()):
            answer = given.get(key)
            if answer is not None and _answers(question.method, answer):
                del self._questions[key]
                if not question.answer.done():
                    question.answer.set_result(bytes(answer))

    def suspend(self, wait_s: float) -> dict[str, Any]:
        """Keep the call for ``wait_s`` seconds, and return the questions for the client, as ``inputRequests``."""
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.end)
        return {
            key: {"method": question.method, "params": msgspec.Raw(question.params)}
            for key, question in self._questions.items()
        }

    def end(self) -> None:
        """End the call: it is cancelled at the server, if it is still under way. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._calls.forget(self)
        self._keep_bytes(0)
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _keep_bytes(self, count: int) -> None:
        self._calls.kept_bytes += count - self._kept
        self._kept = count

    async def _gather(self) -> None:
        """Wait until no further question follows."""
        count = 0
        while len(self._questions) > count and self.response is None:
            count = len(self._questions)
            await asyncio.sleep(_TOGETHER_S)

    async def _run(self, send: Callable[[OnMessage], Awaitable[bytes]]) -> None:
        try:
            self.response = await send(self._take)
            if self._tell is None:
                # The client has not come back yet.
                self._keep_bytes(self._kept + len(self.response))
        finally:
            self._is_ended = True
            self._changed.set()

    def _take(self, sent: ServerMessage) -> Awaitable[bytes] | None:
        if sent.wants_answer:
            return self._ask(sent)
        if self._tell is not None:
            self._tell(sent)
        return None

    async def _ask(self, sent: ServerMessage) -> bytes:
        missing = missing_for(sent.method, sent.params, self._capabilities)
        if missing is not None:
            if missing:
                self._missing = missing
            raise RpcError(INVALID_REQUEST, "The client does not have the capability that this request needs")
        self._asked += 1
        is_too_much = self._asked > MAX_ROUNDS * MAX_QUESTIONS or len(self._questions) >= MAX_QUESTIONS
        size = len(sent.raw_params)
        if is_too_much or not self._calls.has_room_for(size, self.place.principal):
            raise RpcError(INTERNAL_ERROR, "Too many requests wait for input of clients")
        key = self._key_for(sent)
        expected = self.expected.pop(key, None)
        if expected is not None and _answers(sent.method, expected):
            return bytes(expected)
        question = self._questions[key] = _Question(sent.method, sent.raw_params)
        self._keep_bytes(self._kept + size)
        self._changed.set()
        try:
            return await question.answer
        finally:
            self._questions.pop(key, None)
            self._keep_bytes(max(self._kept - size, 0))

    def _key_for(self, sent: ServerMessage) -> str:
        """Return the key of a question: the name that the server gave it, if it did, or else a number."""
        if 0 < len(sent.key) <= _LONGEST_KEY and sent.key not in self._questions:
            return sent.key
        return f"input_{self._asked}"


class SuspendedCalls:
    """Keep the calls of one worker that wait for input.

    Parameters
    ----------
    wait_s
        Seconds that a call waits for the client's next request; then it is cancelled.

    Attributes
    ----------
    kept_bytes
        The bytes of questions, and of responses that no client has fetched yet.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._calls: dict[str, SuspendedCall] = {}
        self._of_principals: Counter[str] = Counter()
        self.kept_bytes: int = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def start(
        self,
        place: Place,
        server_id: str,
        capabilities: Mapping[str, Any],
        tell: Tell,
        send: Callable[[OnMessage], Awaitable[bytes]],
    ) -> SuspendedCall:
        """Start a call whose server may ask.

        Parameters
        ----------
        place, server_id
            What it belongs to, and the server.
        capabilities
            What the client declares.
        tell
            Takes notifications for the client's request.
        send
            ``await send(on_message)`` sends the call, and returns the response.
        """
        call = SuspendedCall(self, place, server_id, capabilities, tell)
        call.run(send, self._tasks)
        return call

    def find(self, key: str, place: Place) -> SuspendedCall:
        """Return a call that waits.

        Raises
        ------
        RpcError
            -32602: it has ended.
        """
        call = self._calls.get(key)
        if call is None or call.place != place:
            raise RpcError(
                INVALID_PARAMS,
                "Invalid params: the request that this requestState belongs to has ended; send it again without",
                _OWN,
            )
        return call

    def keep(self, call: SuspendedCall) -> dict[str, Any]:
        """Keep a call whose server asks, and return the questions, as ``inputRequests``."""
        if call.key not in self._calls:
            self._calls[call.key] = call
            self._of_principals[call.place.principal] += 1
        return call.suspend(self._wait_s)

    def forget(self, call: SuspendedCall) -> None:
        """Keep a call no longer."""
        if self._calls.pop(call.key, None) is not None:
            principal = call.place.principal
            self._of_principals[principal] -= 1
            if not self._of_principals[principal]:
                del self._of_principals[principal]

    def has_room_for(self, size: int, principal: str) -> bool:
        """Return whether a question of ``size`` bytes to a client of this principal may wait."""
        # Clients that do not authenticate are many under one name.
        most = _MOST_CALLS if principal == ANONYMOUS else _MOST_CALLS_OF_ONE
        if len(self._calls) >= _MOST_CALLS or self._of_principals[principal] >= most:
            return False
        return self.kept_bytes + size <= _MOST_BYTES

    async def aclose(self) -> None:
        """Cancel all calls. Idempotent."""
        for call in list(self._calls.values()):
            call.end()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def read_responses(responses: bytes | None) -> dict[str, msgspec.Raw]:
    """Return ``inputResponses`` of a client, each as JSON.

    Raises
    ------
    RpcError
        -32602: it is not an object.
    """
    try:
        return _members_decoder.decode(responses or b"{}")
    except (msgspec.DecodeError, RecursionError):
        raise RpcError(INVALID_PARAMS, "Invalid params: inputResponses must be an object", _OWN) from None


def _answers(method: str, answer: msgspec.Raw) -> bool:
    """Tell whether an answer has the form that its question needs."""
    decoder = _ANSWERS.get(method)
    if decoder is None:
        return False
    try:
        decoded = decoder.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return False
    if isinstance(decoded, _Elicited):
        return decoded.action in _ACTIONS
    return True
