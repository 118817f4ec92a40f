"""Clients of the stateless era: every request names its revision and what the client can do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager._core.splicing import member_range
from mcp_manager.calls.begun_exchange import BegunExchange
from mcp_manager.errors import McpManagerError, RpcError
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.channels import Channel, Incoming
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint, Route
from mcp_manager.gateway.envelopes import for_handshake_server
from mcp_manager.gateway.eras.listen_streams import ListenStreams
from mcp_manager.gateway.eras.parameter_checks import ParameterChecks
from mcp_manager.gateway.eras.request_checks import SUPPORTED, Asked, check_method, read_request
from mcp_manager.gateway.eras.results import STATUSES, for_stateless, server_info_member
from mcp_manager.gateway.eras.stateless_calls import SentRound, StatelessCalls
from mcp_manager.gateway.eras.telling import Telling
from mcp_manager.gateway.loops import Mark
from mcp_manager.gateway.news import News
from mcp_manager.gateway.security.principal import EVERYBODY, Principal
from mcp_manager.gateway.sent_requests import SentRequest
from mcp_manager.gateway.sessions.log_levels import LogLevels
from mcp_manager.gateway.sessions.running_calls import Cancellable
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.error_codes import INVALID_REQUEST
from mcp_manager.protocol.methods import CALL_TOOL, DISCOVER, LIST_TOOLS, MULTI_ROUND

__all__ = ["StatelessEra"]

_LISTEN: Final = "subscriptions/listen"
# Capabilities of the handshake era that this one has in another form: as an extension (SEP-2663).
_OF_HANDSHAKE: Final = ("tasks",)
_MOST_NAMES: Final = 10_000


class StatelessEra:
    """Serve clients of the revisions without a handshake.

    Parameters
    ----------
    answering
        Answers their requests.
    sealer
        Seals ``requestState`` and the ids of tasks; a random key by default.
    input_wait_s
        Seconds that a call to a server of the handshake era waits for the client's input.
    worker
        The number of this worker process.
    levels
        The log levels that sessions of handshake clients have set; servers of that era have one level for all.
    mark
        Recognizes this gateway as a client of its own.
    streams
        The ``subscriptions/listen`` streams; without them, those that are opened have no news.
    """

    def __init__(
        self,
        answering: Answering,
        sealer: Sealer | None = None,
        *,
        input_wait_s: float = 300.0,
        worker: int = 0,
        levels: LogLevels | None = None,
        mark: Mark | None = None,
        streams: ListenStreams | None = None,
    ) -> None:
        self._mark = Mark() if mark is None else mark
        self._answering = answering
        self._calls = StatelessCalls(answering, sealer or Sealer(), input_wait_s, worker, levels)
        self._streams = ListenStreams(News()) if streams is None else streams
        self.parameters: ParameterChecks = ParameterChecks()
        """Checks the arguments that header fields repeat."""
        self.names: dict[str, bytes] = {}
        """What names the server of an endpoint in results, as JSON, by the name of the endpoint."""

    async def take(
        self,
        message: Message,
        channel: Channel,
        endpoint: Endpoint,
        incoming: Incoming | None,
        principal: Principal = EVERYBODY,
    ) -> None:
        """Take one message of a client, and answer it on its channel.

        If the client goes before the reply, the request is cancelled at the server; over stdio, where
        ``notifications/cancelled`` says so, the owner of the connection calls ``on_gone`` of that request's channel.

        Parameters
        ----------
        message
            The message. Notifications of clients have no meaning in this era, and are confirmed.
        channel
            The way back.
        endpoint
            What the client sees.
        incoming
            The HTTP request with the header fields that repeat what the body says; ``None`` over stdio.
        principal
            Whom the client acts for.
        """
        if message.id_raw is None:
            channel.accept()
            return
        await _reply(channel, partial(self._answer, message, channel, endpoint, incoming, principal))

    def begin(
        self,
        message: Message,
        channel: Channel,
        endpoint: Endpoint,
        incoming: Incoming,
        principal: str,
        context: Context,
    ) -> SentRequest | None:
        """Send a request of a client to its server at once; ``None`` if :meth:`take` has to take it."""
        name = self.names.get(endpoint.name)
        if message.method != CALL_TOOL or message.id_raw is None or name is None:
            return None
        try:
            asked = read_request(message, incoming, principal)
            if not self.parameters.has_none(endpoint, asked.name):
                return None
            sent = self._calls.begin(message, asked, endpoint, Telling(channel, None), context)
        except McpManagerError:
            # The general path meets it again, and answers it.
            return None
        return None if sent is None else _SentCall(self._calls, channel, sent, name)

    def resume(self, call: ForwardedCall, channel: Channel, context: Context) -> SentRequest:
        """Return a call that compiled code has sent, as :meth:`begin` does."""
        fields = call.known.fields
        sent = self._calls.resume(call, Telling(channel, None), context)
        return _SentCall(self._calls, channel, sent, self.names[fields.endpoint.name])

    def adapted(self, call: ForwardedCall, adapt: Callable[[bytes], bytes] | None, response: bytes) -> bytes:
        """Return the response to a call that compiled code has sent, in the terms of the client."""
        route = Route(call.route.server_id, call.request, adapt)
        response = self._answering.forwarding.adapted(route, call.id_raw, response)
        name = self.names[call.known.fields.endpoint.name]
        return for_stateless(response, call.id_raw, CALL_TOOL, name, is_of_handshake=not call.route.is_stateless)[0]

    def meta_for_handshake(self, message: Message) -> bytes:
        """Return the ``_meta`` of a request as servers of the handshake era get it, as JSON; b"" for none."""
        meta = member_range(message.params or b"{}", b"_meta")
        if meta is None:
            return b""
        alone = b'{"method":"tools/call","params":{"_meta":%b}}' % (message.params or b"")[slice(*meta)]
        translated = for_handshake_server(scan(alone)).params or b"{}"
        meta = member_range(translated, b"_meta")
        return b"" if meta is None else translated[slice(*meta)]

    def worker_of(self, message: Message) -> int | None:
        """Return the worker that a request belongs to, because the call that it continues waits there; else ``None``."""
        return self._calls.worker_of(message)

    def drain(self) -> None:
        """End all ``subscriptions/listen`` streams, each with its result."""
        self._streams.drain()

    async def aclose(self) -> None:
        """End all streams, and cancel the calls that wait for input. Idempotent."""
        self.drain()
        await self.parameters.aclose()
        await self._calls.aclose()

    async def _answer(
        self, message: Message, channel: Channel, endpoint: Endpoint, incoming: Incoming | None, principal: Principal
    ) -> tuple[bytes | None, int]:
        """Return the response to a request and its HTTP status; ``None`` if it is on its way, or a stream is open."""
        id_raw = message.id_raw or messages.NO_ID
        method = message.method
        try:
            if method is None:
                raise RpcError(INVALID_REQUEST, "Invalid request: clients send no responses in this revision")
            asked = read_request(message, incoming, principal.name)
            check_method(method, asked)
            if method == DISCOVER:
                self._mark.check(asked.client.capabilities, endpoint)
                return messages.response(id_raw, await self._discovered(endpoint, asked)), 200
            if method == _LISTEN:
                # Over stdio, a request can be cancelled as long as its task runs.
                listen = self._streams.serve if incoming is None else self._streams.open
                await listen(message, channel, endpoint, asked.client, principal)
                return None, 200
            if incoming is not None and method == CALL_TOOL and not self.parameters.has_none(endpoint, asked.name):
                await self.parameters.check(message, asked, incoming, endpoint, self._answering)
            telling = Telling(channel, asked.log_level)
            answer = self._calls.rounds if method in MULTI_ROUND else self._calls.answer
            response, is_of_handshake = await answer(message, asked, endpoint, telling)
        except McpManagerError as refusal:
            return _refused(id_raw, refusal)
        if method == LIST_TOOLS:
            self.parameters.learn(endpoint, response)
        name = self.names.get(endpoint.name) or await self._named(endpoint, asked)
        return for_stateless(response, id_raw, method, name, is_of_handshake=is_of_handshake)

    async def _discovered(self, endpoint: Endpoint, asked: Asked) -> bytes:
        description = await endpoint.describe(asked.client)
        named = self._keep_name(endpoint, description.server_info)
        result: dict[str, Any] = {
            "resultType": "complete",
            "supportedVersions": list(SUPPORTED),
            "capabilities": {
                name: value for name, value in description.capabilities.items() if name not in _OF_HANDSHAKE
            },
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": msgspec.Raw(b"{%b}" % named),
        }
        if description.instructions is not None:
            result["instructions"] = description.instructions
        return msgspec.json.encode(result)

    async def _named(self, endpoint: Endpoint, asked: Asked) -> bytes:
        return self._keep_name(endpoint, (await endpoint.describe(asked.client)).server_info)

    def _keep_name(self, endpoint: Endpoint, server_info: dict[str, Any]) -> bytes:
        name = server_info_member(server_info)
        if not endpoint.is_personal:
            if len(self.names) >= _MOST_NAMES:
                self.names.clear()
            self.names[endpoint.name] = name
        return name


class _SentCall:
    """A call whose reply comes without a task; see :class:`~mcp_manager.gateway.sent_requests.SentRequest`."""

    __slots__ = ("_calls", "_name", "_sent", "channel", "exchange")

    def __init__(self, calls: StatelessCalls, channel: Channel, sent: SentRound, name: bytes) -> None:
        self._calls = calls
        self.channel: Channel = channel
        self._sent = sent
        self._name = name
        self.exchange: BegunExchange = sent.exchange

    @property
    def client(self) -> Client:
        return self._sent.turn.asked.client

    @property
    def endpoint(self) -> Endpoint:
        return self._sent.turn.endpoint

    @property
    def route(self) -> Route:
        return self._sent.route

    @property
    def name(self) -> str:
        return self._sent.turn.asked.name or ""

    def start(self, waiting: Cancellable) -> None:
        self.channel.on_gone = waiting.cancel

    def answered(self, response: bytes) -> None:
        self.channel.on_gone = None
        response, is_of_handshake = self._calls.answered(self._sent, response)
        self.channel.finish(*self._adapted(response, is_of_handshake))

    async def finish(self) -> None:
        await _reply(self.channel, self._response)

    def cancel(self) -> None:
        if self.channel.on_gone is not None:
            self.channel.on_gone()

    async def _response(self) -> tuple[bytes, int]:
        try:
            response, is_of_handshake = await self._calls.finish(self._sent)
        except McpManagerError as refusal:
            return _refused(self._sent.turn.id_raw, refusal)
        return self._adapted(response, is_of_handshake)

    def _adapted(self, response: bytes, is_of_handshake: bool) -> tuple[bytes, int]:
        id_raw = self._sent.turn.id_raw
        return for_stateless(response, id_raw, CALL_TOOL, self._name, is_of_handshake=is_of_handshake)


async def _reply(channel: Channel, answer: Callable[[], Awaitable[tuple[bytes | None, int]]]) -> None:
    """Send the response to a request on its channel, unless its client goes first."""
    running = asyncio.current_task()
    assert running is not None
    is_gone = False

    def cancel() -> None:
        nonlocal is_gone
        is_gone = True
        running.cancel()

    channel.on_gone = cancel
    try:
        response, status = await answer()
    except asyncio.CancelledError:
        if not is_gone or running.uncancel():
            raise
        return
    if response is not None:
        channel.on_gone = None
        channel.finish(response, status)


def _refused(id_raw: bytes, refusal: McpManagerError) -> tuple[bytes, int]:
    failed = failures.as_response(id_raw, refusal)
    return failed, STATUSES.get(refusal.code, 200) if isinstance(refusal, RpcError) else 200
