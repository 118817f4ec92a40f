"""Resource subscriptions of the handshake era: each session holds them for as long as it lives (2025-11-25, server/resources)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.errors import CallError
from mcp_manager.protocol import methods
from mcp_manager.protocol.subscriptions import Interest
from mcp_manager.session.peer_faults import PeerFaults
from mcp_manager.session.subscriptions import Spawn, Subscriptions

__all__ = ["Resubscription", "read_uri"]


class _Params(msgspec.Struct):
    uri: str


_params_decoder = msgspec.json.Decoder(_Params)


def read_uri(params: bytes | None) -> str | None:
    """Return the resource that the params of a request are about, ``None`` if they do not say."""
    try:
        return _params_decoder.decode(params or b"{}").uri
    except (msgspec.DecodeError, RecursionError):
        return None


class Resubscription:
    """Bring one session's subscriptions to what is wanted of its server, and keep them there.

    Parameters
    ----------
    index
        Which of the server's instances the session belongs to.
    subscriptions
        What is wanted.
    send
        ``await send(method, params)`` sends a request and returns its reply.
    catch_up
        ``catch_up(interest)`` takes as changed what may have changed while nothing was subscribed.
    faults
        Counts what the server refuses.
    """

    __slots__ = (
        "_catch_up",
        "_faults",
        "_held",
        "_index",
        "_refused",
        "_send",
        "_spawn",
        "_subscriptions",
        "_task",
        "_woken",
    )

    def __init__(
        self,
        index: int,
        subscriptions: Subscriptions,
        send: Callable[[str, bytes], Awaitable[Message]],
        catch_up: Callable[[Interest], None],
        faults: PeerFaults,
    ) -> None:
        self._index = index
        self._subscriptions = subscriptions
        self._send = send
        self._catch_up = catch_up
        self._faults = faults
        self._held: set[str] = set()
        self._refused: set[str] = set()
        self._woken = asyncio.Event()
        self._spawn: Spawn | None = None
        self._task: asyncio.Task[None] | None = None

    def took(self, method: str, uri: str) -> None:
        """Take note that the server accepted a caller's own request on this session: it holds for all of them."""
        if method == methods.SUBSCRIBE:
            self._held.add(uri)
            self._subscriptions.add(uri)
        else:
            self._held.discard(uri)
            self._subscriptions.discard(uri)

    def start(self, spawn: Spawn) -> None:
        """Keep the subscriptions as soon as there are any, in a task that ``spawn`` makes and whoever owns it cancels."""
        self._spawn = spawn
        self._subscriptions.watch(self._wake)
        self._wake()

    def close(self) -> None:
        """Begin nothing any more, and leave to the next session what this one held; idempotent."""
        if self._spawn is not None:
            self._spawn = None
            self._subscriptions.unwatch(self._wake)
            self._subscriptions.heard[self._index] = Interest(uris=frozenset(self._held))

    def _wake(self) -> None:
        self._woken.set()
        if self._task is None and self._spawn is not None and (self._held or self._subscriptions.wanted.uris):
            self._task = self._spawn(self._run())

    async def _run(self) -> None:
        """Keep the session's subscriptions until cancelled.

        What an earlier session held is told as updated once this one holds it: nobody knows what happened meanwhile.
        """
        heard = self._subscriptions.heard.pop(self._index, Interest()).uris
        while True:
            self._woken.clear()
            gained = await self._adjust()
            if gained & heard:
                self._catch_up(Interest(uris=gained & heard))
            heard -= gained
            await self._woken.wait()

    async def _adjust(self) -> frozenset[str]:
        """Subscribe to what is wanted and not held, unsubscribe from the opposite; return what is held since."""
        wanted = self._subscriptions.wanted.uris
        self._refused &= wanted
        gained = set()
        for uri in sorted(wanted - self._held - self._refused):
            if await self._ask(methods.SUBSCRIBE, uri):
                self._held.add(uri)
                gained.add(uri)
            else:
                self._refused.add(uri)
        for uri in sorted(self._held - wanted):
            self._held.discard(uri)
            await self._ask(methods.UNSUBSCRIBE, uri)
        return frozenset(gained)

    async def _ask(self, method: str, uri: str) -> bool:
        try:
            reply = await self._send(method, msgspec.json.encode({"uri": uri}))
        except CallError:
            # A session that is lost is replaced, and its replacement begins anew.
            return False
        if reply.kind == ERROR:
            self._faults.count("a subscription was refused", f"{method}: JSON-RPC error {reply.error_code}")
            return False
        return True
