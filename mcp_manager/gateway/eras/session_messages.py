"""The messages of a client within its session: requests, notifications, and answers to questions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager._core.jsonrpc import Message
from mcp_manager.calls.begun_exchange import BegunExchange
from mcp_manager.errors import McpManagerError, RpcError
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.channels import Channel
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint, Route
from mcp_manager.gateway.endpoints.request_params import plain_text_in
from mcp_manager.gateway.eras.results import for_handshake
from mcp_manager.gateway.sent_requests import SentRequest
from mcp_manager.gateway.sessions.log_levels import LEVELS
from mcp_manager.gateway.sessions.running_calls import Cancellable, RunningCall
from mcp_manager.gateway.sessions.table import SessionTable
from mcp_manager.protocol.error_codes import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from mcp_manager.protocol.methods import (
    CALL_TOOL,
    CANCELLED,
    INITIALIZE,
    INITIALIZED,
    PING,
    PROGRESS,
    ROOTS_CHANGED,
    SET_LOG_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    is_notification,
)

__all__ = ["SessionMessages"]

_log = logging.getLogger(__name__)

_EMPTY: Final = b"{}"
_TELL_S: Final = 5.0
_OWN: Final = {"source": "gateway"}


class _Level(msgspec.Struct):
    level: str


class _Resource(msgspec.Struct):
    uri: str


class _Progress(msgspec.Struct):
    progress_token: msgspec.Raw = msgspec.field(name="progressToken")


_level_decoder = msgspec.json.Decoder(_Level)
_resource_decoder = msgspec.json.Decoder(_Resource)
_progress_decoder = msgspec.json.Decoder(_Progress)


class SessionMessages:
    """Take the messages of clients whose session is known.

    Parameters
    ----------
    answering
        Answers requests.
    sessions
        What is kept of sessions.
    """

    def __init__(self, answering: Answering, sessions: SessionTable) -> None:
        self._answering = answering
        self._sessions = sessions
        self._calls = sessions.calls
        self._own = {
            INITIALIZE: self._initialize,
            PING: self._ping,
            SET_LOG_LEVEL: self._set_level,
            SUBSCRIBE: self._subscribe,
            UNSUBSCRIBE: self._unsubscribe,
        }

    def take(self, client: Client, endpoint: Endpoint, message: Message, channel: Channel) -> Coroutine[Any, Any, None]:
        """Return the work that takes one message, and answers it on its channel."""
        method = message.method
        id_raw = message.id_raw
        if method is None or id_raw is None:
            return self._take_other(client, endpoint, message, channel, method)
        own = self._own.get(method)
        if own is not None:
            return _answer(id_raw, own(client, endpoint, message), channel)
        call = RunningCall(self._calls, client, endpoint, message, channel, id_raw)
        answer = partial(self._answering.answer, endpoint, message, client, call.on_message, answers_input=True)
        return self._call(call, method, answer)

    def begin(
        self, client: Client, endpoint: Endpoint, message: Message, channel: Channel, context: Context
    ) -> SentRequest | None:
        """Send a request to its server at once, without a task; ``None`` if nothing was done: see :meth:`take`."""
        method = message.method
        id_raw = message.id_raw
        if method is None or id_raw is None or method in self._own:
            return None
        route = endpoint.known_route(message, client)
        if route is None or (channel.usage is not None and channel.usage.routed(route) is not None):
            return None
        call = RunningCall(self._calls, client, endpoint, message, channel, id_raw)
        exchange = self._answering.forwarding.begin(route, client, call.on_message, context, answers_input=True)
        return None if exchange is None else _SentCall(self, call, route, exchange)

    def resume(self, forwarded: ForwardedCall, channel: Channel, context: Context) -> SentRequest:
        """Return a call that compiled code has sent, as :meth:`begin` does."""
        client, endpoint = forwarded.known.client, forwarded.known.fields.endpoint
        call = RunningCall(self._calls, client, endpoint, forwarded.message, channel, forwarded.id_raw)
        forwarding = self._answering.forwarding
        exchange = forwarding.resume(forwarded, client, call.on_message, context, answers_input=True)
        route = Route(forwarded.route.server_id, forwarded.request, forwarded.route.adapt)
        return _SentCall(self, call, route, exchange)

    def adapted(self, forwarded: ForwardedCall, adapt: Callable[[bytes], bytes] | None, response: bytes) -> bytes:
        """Return the response to a call that compiled code has sent, in the terms of the client."""
        route = Route(forwarded.route.server_id, forwarded.request, adapt)
        response = self._answering.forwarding.adapted(route, forwarded.id_raw, response)
        return for_handshake(response, forwarded.id_raw, CALL_TOOL)

    async def _call(self, call: RunningCall, method: str, answer: Callable[[], Awaitable[bytes]]) -> None:
        task = asyncio.current_task()
        self._calls.begin(call, task)
        try:
            reply = for_handshake(await answer(), call.id_raw, method)
        except asyncio.CancelledError:
            if not call.is_cancelled:
                call.abandon()
                raise
            reply = b""
        except Exception:
            _log.exception("a request of a client failed: %s", method)
            reply = failures.internal(call.id_raw)
        finally:
            self._calls.end(call)
        if call.is_cancelled and task is not None and task.uncancel():
            # Not by the client alone, but also by whoever runs this.
            call.abandon()
            raise asyncio.CancelledError
        call.finish(reply)

    async def _take_other(
        self, client: Client, endpoint: Endpoint, message: Message, channel: Channel, method: str | None
    ) -> None:
        """Take a notification, or the answer to a question."""
        if method is None:
            # Nobody may wait for it any more: it has crossed the end of the wait.
            self._sessions.questions.answer(client, message)
        channel.accept()
        if method is not None:
            await self._take_notification(client, endpoint, message, method)

    async def _take_notification(self, client: Client, endpoint: Endpoint, message: Message, method: str) -> None:
        if method == CANCELLED:
            self._calls.cancel(client, message.params)
        elif method == PROGRESS:
            await self._pass_progress(client, message)
        elif method == ROOTS_CHANGED:
            forwarding = self._answering.forwarding
            await asyncio.gather(*(forwarding.notify(each, client, message) for each in forwarding.servers_of(client)))
        elif method != INITIALIZED and is_notification(method):
            await self._pass(client, endpoint, message)

    async def _pass_progress(self, client: Client, message: Message) -> None:
        """Pass on what the client reports on a server's question to the server that asked."""
        try:
            token = bytes(_progress_decoder.decode(message.params or _EMPTY).progress_token)
        except msgspec.DecodeError:
            return
        asked = {question.progress_token: question for question in self._sessions.questions.awaiting(client.session)}
        question = asked.get(token) if token else None
        call = None if question is None else question.sink
        if isinstance(call, RunningCall):
            await self._pass(client, call.endpoint, message, call.message)

    async def _pass(
        self, client: Client, endpoint: Endpoint, message: Message, belongs_to: Message | None = None
    ) -> None:
        """Pass a notification on to the server that it, or a request, belongs to; nobody is told if that fails."""
        try:
            route = await endpoint.route(message if belongs_to is None else belongs_to, client)
        except McpManagerError:
            return
        await self._answering.forwarding.notify(route.server_id, client, message)

    # Requests that the gateway answers itself

    async def _initialize(self, client: Client, endpoint: Endpoint, message: Message) -> bytes:
        raise RpcError(INVALID_REQUEST, "The session has begun already: begin another one without its id", _OWN)

    async def _ping(self, client: Client, endpoint: Endpoint, message: Message) -> bytes:
        return _EMPTY

    async def _set_level(self, client: Client, endpoint: Endpoint, message: Message) -> bytes:
        if not endpoint.allows(SET_LOG_LEVEL):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {SET_LOG_LEVEL}", _OWN)
        try:
            level = _level_decoder.decode(message.params or _EMPTY).level
        except msgspec.DecodeError:
            level = ""
        if level not in LEVELS:
            raise RpcError(INVALID_PARAMS, f"The level must be one of {', '.join(LEVELS)}", _OWN)
        self._sessions.levels.set(client.session, level)
        forwarding = self._answering.forwarding
        lowest = self._sessions.levels.lowest()
        own = forwarding.servers_of(client)
        telling = [
            *(forwarding.set_log_level(each, lowest) for each in endpoint.servers()),
            *(forwarding.forward(Route(each, message), messages.NO_ID, client) for each in own),
        ]
        # Servers that are slow get the level nevertheless, and the client need not wait for them.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await asyncio.gather(*telling)
        return _EMPTY

    async def _subscribe(self, client: Client, endpoint: Endpoint, message: Message) -> bytes:
        await self._sessions.subscribe(client, endpoint, _uri(message))
        return _EMPTY

    async def _unsubscribe(self, client: Client, endpoint: Endpoint, message: Message) -> bytes:
        await self._sessions.unsubscribe(client, _uri(message))
        return _EMPTY


class _SentCall:
    """A request whose reply comes without a task; see :class:`~mcp_manager.gateway.sent_requests.SentRequest`."""

    __slots__ = ("_messages", "call", "exchange", "route")

    def __init__(self, messages: SessionMessages, call: RunningCall, route: Route, exchange: BegunExchange) -> None:
        self._messages = messages
        self.call: RunningCall = call
        self.route: Route = route
        self.exchange: BegunExchange = exchange

    @property
    def client(self) -> Client:
        return self.call.client

    @property
    def endpoint(self) -> Endpoint:
        return self.call.endpoint

    @property
    def channel(self) -> Channel:
        return self.call.channel

    @property
    def name(self) -> str:
        found = plain_text_in(self.call.message, b"name")
        return "" if found is None else found[0]

    def start(self, waiting: Cancellable) -> None:
        # That the client has closed its connection cancels nothing.
        self._messages._calls.begin(self.call, waiting)

    def answered(self, response: bytes) -> None:
        call, route = self.call, self.route
        self._messages._calls.end(call)
        if route.adapt is not None:
            response = self._messages._answering.forwarding.adapted(route, call.id_raw, response)
        call.finish(for_handshake(response, call.id_raw, call.message.method or ""))

    def finish(self) -> Coroutine[Any, Any, None]:
        call, route, exchange = self.call, self.route, self.exchange
        finish = self._messages._answering.forwarding.finish
        return self._messages._call(
            call, call.message.method or "", lambda: finish(route, call.id_raw, exchange.finish())
        )

    def cancel(self) -> None:
        if self.call.task is not None:
            self.call.task.cancel()


async def _answer(id_raw: bytes, result: Awaitable[bytes], channel: Channel) -> None:
    try:
        channel.finish(messages.response(id_raw, await result))
    except McpManagerError as failure:
        channel.finish(failures.as_response(id_raw, failure))
    except Exception:
        _log.exception("a request of a client failed")
        channel.finish(failures.internal(id_raw))


def _uri(message: Message) -> str:
    try:
        return _resource_decoder.decode(message.params or _EMPTY).uri
    except msgspec.DecodeError:
        raise RpcError(INVALID_PARAMS, "params need the uri of a resource", _OWN) from None
