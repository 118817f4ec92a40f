"""Requests of clients of 2026-07-28 on their way to servers: rounds of input, and tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from contextvars import Context
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager._core.jsonrpc import FrameError, Message, scan, scan_reply
from mcp_manager.calls.begun_exchange import BegunExchange
from mcp_manager.calls.exchange_listener import OnMessage, ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.endpoints.base import Endpoint, Route
from mcp_manager.gateway.endpoints.owned_tasks import seals_tasks
from mcp_manager.gateway.endpoints.request_params import text_in
from mcp_manager.gateway.endpoints.task_ids import TaskIds
from mcp_manager.gateway.eras.log_requests import LogRequests
from mcp_manager.gateway.eras.request_checks import Asked, missing_for, raise_for_lack_of, refused_for_lack_of
from mcp_manager.gateway.eras.request_state import Place, RequestStates, State
from mcp_manager.gateway.eras.results import is_complete, members_of_result
from mcp_manager.gateway.eras.suspended_calls import SuspendedCall, SuspendedCalls, read_responses
from mcp_manager.gateway.eras.telling import Telling
from mcp_manager.gateway.eras.translations import cancellation_of_task, result_of_task, url_questions
from mcp_manager.gateway.sessions.log_levels import LogLevels
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.gateway.tool_search.meta_tools import CALL
from mcp_manager.gateway.tool_search.wrapped_calls import unwrapped
from mcp_manager.protocol.capabilities import elicitation_modes
from mcp_manager.protocol.error_codes import INVALID_PARAMS, INVALID_REQUEST
from mcp_manager.protocol.methods import CALL_TOOL, MULTI_ROUND
from mcp_manager.protocol.multi_round import INPUT_REQUIRED
from mcp_manager.runtime.background import background_task

__all__ = ["SentRound", "StatelessCalls"]

_OWN: Final = {"source": "gateway"}
_ASKS: Final = b'"input_required"'
_IS_TASK: Final = b'"task"'
_STATE: Final = "requestState"
_CANCEL_S: Final = 2.0
_MOST_CANCELLING: Final = 1_000

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


class _Round(msgspec.Struct, frozen=True):
    """One round of a request: what the client says, what it belongs to, and where it was sent."""

    asked: Asked
    place: Place
    endpoint: Endpoint
    id_raw: bytes


def _place(message: Message, asked: Asked, endpoint: Endpoint) -> Place:
    """Return what the state of a request belongs to; for a tool that a search has found, this is the tool itself."""
    name = asked.name or ""
    if name == CALL and endpoint.lists_others is not None:
        with contextlib.suppress(RpcError):
            found = text_in(unwrapped(message), b"name")
            name = name if found is None else f"{CALL} {found[1]}"
    return Place(asked.client.principal, endpoint.name, message.method or "", name)


class _Continued(msgspec.Struct, rename="camel"):
    request_state: str | None = None


_continued_decoder = msgspec.json.Decoder(_Continued)


class StatelessCalls:
    """Answer the requests that belong to servers.

    Parameters
    ----------
    answering
        Finds and asks the servers.
    sealer
        Seals ``requestState`` and the ids of tasks.
    input_wait_s
        Seconds that a call to a server of the handshake era waits for the client's input.
    worker
        The number of this worker process.
    levels
        The log levels that sessions of clients have set.
    """

    def __init__(
        self, answering: Answering, sealer: Sealer, input_wait_s: float, worker: int, levels: LogLevels | None
    ) -> None:
        self._answering = answering
        self._states = RequestStates(sealer)
        self._task_ids = TaskIds(sealer)
        self._suspended = SuspendedCalls(input_wait_s)
        self._worker = worker
        self._logs = None if levels is None else LogRequests(answering.forwarding, levels)
        self._cancelling: set[asyncio.Task[Any]] = set()

    async def answer(self, message: Message, asked: Asked, endpoint: Endpoint, telling: Telling) -> tuple[bytes, bool]:
        """Answer a request that takes one round; see :meth:`rounds` for those that may take several.

        Returns
        -------
        The response in the form of its server, and whether that is surely one of the handshake era.

        Raises
        ------
        RpcError
            The request is refused.
        """
        return await self._answering.answer(endpoint, message, asked.client, partial(_refuse, telling)), False

    def worker_of(self, message: Message) -> int | None:
        """Return the worker that a request with a state belongs to; ``None`` if it has none."""
        params = message.params
        if params is None or b'"requestState"' not in params or message.method not in MULTI_ROUND:
            return None
        try:
            state = _continued_decoder.decode(params).request_state
        except (msgspec.DecodeError, RecursionError):
            return None
        return None if state is None else self._states.worker_of(state)

    async def aclose(self) -> None:
        """Cancel the calls that wait for input. Idempotent."""
        await self._suspended.aclose()
        # Their servers have to be told of tasks before the manager stops.
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    async def rounds(self, message: Message, asked: Asked, endpoint: Endpoint, telling: Telling) -> tuple[bytes, bool]:
        """Answer a request that may take several rounds (2026-07-28, basic/patterns/mrtr); see :meth:`answer`."""
        assert message.method is not None
        client = asked.client
        place = _place(message, asked, endpoint)
        turn = _Round(asked, place, endpoint, message.id_raw or messages.NO_ID)
        known: State | None = None
        if asked.request_state is not None:
            known = self._states.open(asked.request_state, place)
            if known.suspended:
                # What was allowed when the call began need not be so now.
                await endpoint.route(message, client)
                call = self._suspended.find(known.suspended, place)
                call.resume(asked.input_responses, telling)
                return await self._followed(call, turn)
            message = _again(message, known.state)
        own = await endpoint.own_result(message, client)
        if own is not None:
            return messages.response(turn.id_raw, own), False
        route = await endpoint.route(message, client)
        if known is not None and known.server_id != route.server_id:
            raise RpcError(INVALID_PARAMS, f"Invalid params: {asked.name!r:.80} belongs to another server now", _OWN)
        if asked.log_level is not None and self._logs is not None:
            await self._logs.ask(route.server_id, asked.log_level)
        if client.can_be_asked and self._answering.forwarding.may_ask(route.server_id):
            send = partial(self._send, route, asked, turn.id_raw)
            expected = read_responses(asked.input_responses)
            call = self._suspended.start(place, route.server_id, client.capabilities, telling, send)
            call.expected, call.id_raw = expected, turn.id_raw
            return await self._followed(call, turn)
        refusing = _Refusing(telling)
        response = await self._send(route, asked, turn.id_raw, refusing)
        return await self._unless_refused(response, refusing, turn, route.server_id)

    def begin(
        self, message: Message, asked: Asked, endpoint: Endpoint, telling: Telling, context: Context
    ) -> SentRound | None:
        """Send the first round of a request at once, without a task; ``None`` if nothing was done: see :meth:`rounds`.

        Raises
        ------
        McpManagerError
            There is no such server; nothing was done.
        """
        client, method = asked.client, message.method
        if method is None or method not in MULTI_ROUND or message.id_raw is None:
            return None
        if asked.request_state is not None or asked.input_responses is not None or asked.log_level is not None:
            return None
        route = endpoint.known_route(message, client)
        forwarding = self._answering.forwarding
        if route is None or (telling.usage is not None and telling.usage.routed(route) is not None):
            return None
        is_of_handshake = forwarding.may_ask(route.server_id)
        if is_of_handshake and client.can_be_asked:
            return None
        refusing = _Refusing(telling)
        exchange = forwarding.begin(route, client, refusing, context)
        if exchange is None:
            return None
        turn = _Round(asked, _place(message, asked, endpoint), endpoint, message.id_raw)
        return SentRound(turn, route, refusing, exchange, is_of_handshake)

    def resume(self, call: ForwardedCall, telling: Telling, context: Context) -> SentRound:
        """Return the round of a call that compiled code has sent, as :meth:`begin` does."""
        client, endpoint, name = call.known.client, call.known.fields.endpoint, call.route.name
        refusing = _Refusing(telling)
        exchange = self._answering.forwarding.resume(call, client, refusing, context)
        place = Place(client.principal, endpoint.name, CALL_TOOL, name)
        turn = _Round(Asked(client, name), place, endpoint, call.id_raw)
        route = Route(call.route.server_id, call.request, call.route.adapt)
        return SentRound(turn, route, refusing, exchange, is_of_handshake=not call.route.is_stateless)

    def answered(self, sent: SentRound, response: bytes) -> tuple[bytes, bool]:
        """Return the complete result of a round that no task waits for, as :meth:`rounds` does."""
        response = self._answering.forwarding.adapted(sent.route, sent.turn.id_raw, response)
        return response, sent.is_of_handshake

    async def finish(self, sent: SentRound) -> tuple[bytes, bool]:
        """Answer a request that was sent, as :meth:`rounds` does."""
        turn, route = sent.turn, sent.route
        response = await self._answering.forwarding.finish(route, turn.id_raw, sent.exchange.finish())
        return await self._unless_refused(response, sent.refusing, turn, route.server_id)

    async def _unless_refused(
        self, response: bytes, refusing: _Refusing, turn: _Round, server_id: str
    ) -> tuple[bytes, bool]:
        if refusing.missing is not None:
            raise_for_lack_of(refusing.missing, response)
        return await self._adapted(response, turn, server_id)

    def _send(self, route: Route, asked: Asked, id_raw: bytes, on_message: OnMessage) -> Awaitable[bytes]:
        return self._answering.forwarding.forward(route, id_raw, asked.client, on_message)

    async def _followed(self, call: SuspendedCall, turn: _Round) -> tuple[bytes, bool]:
        """Return the response of a call, or the questions of its server."""
        response = await call.come()
        if response is not None:
            if turn.id_raw != call.id_raw:
                response = scan_reply(response).with_id(turn.id_raw)
            return await self._adapted(response, turn, call.server_id)
        state = State(call.place, call.server_id, "", call.key, self._worker)
        return self._asking(turn, self._suspended.keep(call), state), False

    def _asking(self, turn: _Round, questions: dict[str, Any], state: State) -> bytes:
        result = {"resultType": INPUT_REQUIRED, "inputRequests": questions, _STATE: self._states.seal(state)}
        return messages.response(turn.id_raw, msgspec.json.encode(result))

    async def _adapted(self, response: bytes, turn: _Round, server_id: str) -> tuple[bytes, bool]:
        """Return a response in a form that the client can take, and whether its server is of the handshake era."""
        if self._answering.forwarding.may_ask(server_id):
            questions = url_questions(response)
            if questions is None:
                return response, True
            if "url" not in elicitation_modes(turn.asked.client.capabilities):
                raise refused_for_lack_of({"elicitation": {"url": {}}})
            return self._asking(turn, questions, State(turn.place, server_id, worker=self._worker)), False
        if is_complete(response, turn.id_raw):
            return response, False
        return await self._sealed(response, turn, server_id), False

    async def _sealed(self, response: bytes, turn: _Round, server_id: str) -> bytes:
        """Return a response of a stateless server with its state and the id of its task sealed."""
        seals = seals_tasks(turn.asked.client, is_merged=turn.endpoint.is_merged)
        has_task = _IS_TASK in response and (seals or not turn.asked.follows_tasks)
        members = members_of_result(response) if has_task or _ASKS in response else None
        if members is None or "resultType" not in members:
            return response
        kind = bytes(members["resultType"])
        if kind == _ASKS and _STATE in members and bytes(members[_STATE]) != b"null":
            state = State(turn.place, server_id, bytes(members[_STATE]).decode(), worker=self._worker)
            members[_STATE] = msgspec.Raw(msgspec.json.encode(self._states.seal(state)))
        elif kind == _IS_TASK and not turn.asked.follows_tasks:
            return await self._result_of_task(response, turn, server_id)
        elif kind == _IS_TASK and seals and "taskId" in members:
            task_id = _text_decoder.decode(members["taskId"])
            sealed = self._task_ids.seal(turn.place.principal, turn.place.endpoint, server_id, task_id)
            members["taskId"] = msgspec.Raw(msgspec.json.encode(sealed))
        else:
            return response
        return messages.response(turn.id_raw, msgspec.json.encode(members))

    async def _result_of_task(self, response: bytes, turn: _Round, server_id: str) -> bytes:
        """Wait for the result of a task; if nobody waits for it any more, the task is cancelled at its server."""
        send = partial(self._send_again, server_id, turn)
        try:
            return await result_of_task(response, turn.id_raw, send)
        except (RpcError, asyncio.CancelledError):
            request = cancellation_of_task(response, turn.id_raw)
            if request is not None and len(self._cancelling) < _MOST_CANCELLING:
                background_task(_to_its_end(send(request)), "cancel a task at its server", among=self._cancelling)
            raise

    def _send_again(self, server_id: str, turn: _Round, request: bytes) -> Awaitable[bytes]:
        route = Route(server_id, request, turn.endpoint.adapter(server_id))
        return self._answering.forwarding.forward(route, turn.id_raw, turn.asked.client)


async def _to_its_end(sending: Awaitable[bytes]) -> None:
    """Send what nobody waits for, and whose failure means little: a task ends by itself, too."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CANCEL_S):
            await sending


class _Refusing:
    """Pass notifications on, and refuse what a server asks of a client that cannot be asked anything."""

    __slots__ = ("_telling", "missing")

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self.missing: dict[str, Any] | None = None

    def __call__(self, sent: ServerMessage) -> None:
        if not sent.wants_answer:
            self._telling(sent)
            return
        self.missing = missing_for(sent.method, sent.params, {}) or None
        raise RpcError(INVALID_REQUEST, "The client does not have the capability that this request needs")


class SentRound:
    """The first round of a request that was sent before there was a task."""

    __slots__ = ("exchange", "is_of_handshake", "refusing", "route", "turn")

    def __init__(
        self, turn: _Round, route: Route, refusing: _Refusing, exchange: BegunExchange, is_of_handshake: bool
    ) -> None:
        self.turn: _Round = turn
        self.route: Route = route
        self.refusing: _Refusing = refusing
        self.exchange: BegunExchange = exchange
        self.is_of_handshake: bool = is_of_handshake


def _refuse(telling: Telling, sent: ServerMessage) -> None:
    """Pass a notification on, and refuse a question: only some methods may lead to questions in this revision."""
    if sent.wants_answer:
        raise RpcError(INVALID_REQUEST, "The client cannot be asked anything during this request")
    telling(sent)


def _again(message: Message, state: str) -> Message:
    """Return the request of a later round as its server expects it; ``state`` is JSON, "" if the server gave none."""
    if state:
        return _with_member(message, _STATE, state.encode())
    members = _members_decoder.decode(message.params or b"{}")
    members.pop(_STATE, None)
    members.pop("inputResponses", None)
    return _request(message, members)


def _with_member(message: Message, name: str, value: bytes) -> Message:
    """Return a request with another value, as JSON, for one member of its params."""
    members = _members_decoder.decode(message.params or b"{}")
    members[name] = msgspec.Raw(value)
    return _request(message, members)


def _request(message: Message, members: dict[str, msgspec.Raw]) -> Message:
    """Return a request with other params."""
    params = msgspec.json.encode(members)
    try:
        return scan(messages.request(message.id_raw or messages.NO_ID, message.method or "", params))
    except FrameError:
        raise RpcError(INVALID_PARAMS, "Invalid params: they cannot be read", _OWN) from None
