"""``subscriptions/listen``: the response streams on which clients of 2026-07-28 get notifications of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import McpManagerError, OverloadedError, RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import Channel
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.news import Listening, News
from mcp_manager.gateway.security.accounting import Usage
from mcp_manager.gateway.security.leases import Lease, Leases
from mcp_manager.gateway.security.principal import EVERYBODY, Principal
from mcp_manager.protocol.capabilities import offers
from mcp_manager.protocol.error_codes import INVALID_PARAMS, INVALID_REQUEST
from mcp_manager.protocol.methods import SUBSCRIPTION_ACKNOWLEDGED
from mcp_manager.protocol.subscriptions import CHANGE_KINDS, offered_kinds

__all__ = ["ListenStreams"]

_MOST_STREAMS: Final = 20_000
_MOST_URIS: Final = 1_000
_OWN: Final = {"source": "gateway"}
_TAG: Final = b'"_meta":{"io.modelcontextprotocol/subscriptionId":%b}'
_NO_PARAMS: Final = b"{}"


class _Wanted(msgspec.Struct, rename="camel"):
    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: list[str] = []


class _Params(msgspec.Struct):
    notifications: _Wanted


_params_decoder = msgspec.json.Decoder(_Params)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ListenStream:
    """One stream: it lasts until its client goes or the gateway drains, and needs no task."""

    __slots__ = ("_channel", "_id_raw", "_streams", "_tag", "_waiting", "lease", "listening", "on_end", "usage")

    def __init__(self, streams: ListenStreams, channel: Channel, id_raw: bytes) -> None:
        self._streams = streams
        self._channel = channel
        self._id_raw = id_raw
        self._tag = _TAG % id_raw
        # What comes before the acknowledgement, which is the first message.
        self._waiting: list[bytes] | None = []
        self.listening: Listening | None = None
        self.on_end: Callable[[], None] | None = None
        self.usage: Usage | None = None
        self.lease: Lease | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return self._streams.has(self)

    @property
    def is_acknowledged(self) -> bool:
        """Whether it has begun."""
        return self._waiting is None

    def deliver(self, method: str, params: bytes) -> None:
        """Tell the client of a change."""
        told = messages.notification(method, _tagged(params, self._tag))
        if self._waiting is None:
            self._channel.send(told)
        elif len(self._waiting) < _MOST_URIS:
            self._waiting.append(told)

    def acknowledge(self, honoured: dict[str, Any]) -> None:
        """Tell the client what it will be told; from now on, it is told at once."""
        told = _tagged(msgspec.json.encode({"notifications": honoured}), self._tag)
        self._channel.on_gone = self.close
        self._channel.send(messages.notification(SUBSCRIPTION_ACKNOWLEDGED, told))
        waiting, self._waiting = self._waiting, None
        for each in waiting or ():
            self._channel.send(each)

    def end(self) -> None:
        """End the stream with its result, because the credentials that it was opened with have expired."""
        if self.is_acknowledged:
            self.finish()

    def finish(self) -> None:
        """End the stream with its result."""
        self._channel.on_gone = None
        self.close()
        result = b'{"resultType":"complete",%b}' % self._tag
        self._channel.finish(messages.response(self._id_raw, result))

    def close(self) -> None:
        """Deliver nothing more. Idempotent."""
        self._streams.forget(self)
        if self.lease is not None:
            self.lease.close()
        if self.listening is not None:
            self.listening.close()
        if self.usage is not None:
            self.usage.end(None)
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()


class ListenStreams:
    """Serve ``subscriptions/listen`` (2026-07-28, basic/patterns/subscriptions).

    Parameters
    ----------
    news
        Tells what changes.
    leases
        End the streams whose credentials expire.
    """

    def __init__(self, news: News, leases: Leases | None = None) -> None:
        self._news = news
        self._leases = leases
        self._streams: set[ListenStream] = set()
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._streams)

    async def serve(
        self, message: Message, channel: Channel, endpoint: Endpoint, client: Client, principal: Principal = EVERYBODY
    ) -> None:
        """Open a stream, and return when it has ended.

        Raises
        ------
        RpcError, OverloadedError
            As for :meth:`open`.
        """
        stream = await self.open(message, channel, endpoint, client, principal)
        ended = asyncio.Event()
        stream.on_end = ended.set
        try:
            if stream in self._streams:
                await ended.wait()
        finally:
            stream.close()

    async def open(
        self, message: Message, channel: Channel, endpoint: Endpoint, client: Client, principal: Principal = EVERYBODY
    ) -> ListenStream:
        """Open a stream, which lasts until the client goes, or until :meth:`drain`.

        From then on, ``on_gone`` of the channel is the stream's.

        Raises
        ------
        RpcError
            The params are wrong, or the client takes no event stream.
        OverloadedError
            There are too many streams.
        """
        wanted = _read(message)
        if not channel.can_send:
            raise RpcError(INVALID_REQUEST, "Invalid request: a stream needs Accept: text/event-stream", _OWN)
        if len(self._streams) >= _MOST_STREAMS:
            raise OverloadedError(f"More than {_MOST_STREAMS:,} clients listen; try again later")
        usage = channel.usage
        if usage is not None:
            usage.become_stream()
        stream = ListenStream(self, channel, message.id_raw or messages.NO_ID)
        stream.usage = usage
        self._streams.add(stream)
        try:
            capabilities = (await endpoint.describe(client)).capabilities
            flags = {kind: member for kind, member in CHANGE_KINDS.items() if wanted[member]}
            kinds = frozenset(flags) & offered_kinds(capabilities)
            stream.listening = listening = self._news.listen(endpoint, stream.deliver, kinds, client)
            honoured: dict[str, Any] = {flags[kind]: True for kind in sorted(kinds)}
            uris = wanted["resourceSubscriptions"] if offers(capabilities, "resources", "subscribe") else []
            accepted = [uri for uri in uris if await _subscribed(listening, uri, client)]
        except BaseException:
            stream.close()
            raise
        if accepted:
            honoured["resourceSubscriptions"] = accepted
        stream.acknowledge(honoured)
        if self._leases is not None and principal is not EVERYBODY:
            stream.lease = self._leases.add(principal, stream)
        if self._is_draining:
            stream.finish()
        return stream

    def has(self, stream: ListenStream) -> bool:
        """Tell whether a stream has not ended yet."""
        return stream in self._streams

    def forget(self, stream: ListenStream) -> None:
        """Forget a stream that has ended; called by it."""
        self._streams.discard(stream)

    def drain(self) -> None:
        """End all streams, each with its result; later ones end at once. Idempotent."""
        self._is_draining = True
        for stream in list(self._streams):
            if stream.is_acknowledged:
                stream.finish()


async def _subscribed(listening: Listening, uri: str, client: Client) -> bool:
    """Subscribe to a resource; tell whether that succeeded. What fails is not among what is acknowledged."""
    try:
        await listening.subscribe(uri, client)
    except McpManagerError:
        return False
    return True


def _read(message: Message) -> dict[str, Any]:
    try:
        wanted = _params_decoder.decode(message.params or _NO_PARAMS).notifications
    except (msgspec.DecodeError, RecursionError):
        raise RpcError(INVALID_PARAMS, "Invalid params: notifications must say what to send", _OWN) from None
    uris = list(dict.fromkeys(wanted.resource_subscriptions))
    if len(uris) > _MOST_URIS:
        raise RpcError(INVALID_PARAMS, f"Invalid params: more than {_MOST_URIS:,} resources", _OWN)
    return {
        "toolsListChanged": wanted.tools_list_changed,
        "promptsListChanged": wanted.prompts_list_changed,
        "resourcesListChanged": wanted.resources_list_changed,
        "resourceSubscriptions": uris,
    }


def _tagged(params: bytes, tag: bytes) -> bytes:
    """Return the params of a notification with the id of the subscription in ``_meta``."""
    if b'"_meta"' not in params:
        rest = params[1:].lstrip()
        return b"{%b%b%b" % (tag, b"" if rest[:1] == b"}" else b",", rest)
    members = _members_decoder.decode(params)
    meta = bytes(members.pop("_meta", b"{}"))
    kept = _members_decoder.decode(meta) if meta.startswith(b"{") else {}
    kept.update(_members_decoder.decode(_members_decoder.decode(b"{%b}" % tag)["_meta"]))
    return msgspec.json.encode({"_meta": kept, **members})
