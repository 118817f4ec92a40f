"""Resource subscriptions of the handshake era: each session holds them for as long as it lives (2025-11-25, server/resources)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import msgspec

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.backoff import backoff_delay
from mcp_manager.errors import SessionLostError
from mcp_manager.protocol import methods
from mcp_manager.protocol.subscriptions import Interest
from mcp_manager.session.listening import Spawn
from mcp_manager.session.template import SessionTemplate

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
    template
        What the server's sessions are made from: what is wanted, and the delays before a failed request is repeated.
    number
        Which of the server's instances the session belongs to.
    send
        ``await send(method, params)`` sends a request and returns its reply.
    catch_up
        ``catch_up(interest)`` takes as changed what may have changed while nothing was subscribed.
    """

    __slots__ = (
        "_catch_up",
        "_containment",
        "_faults",
        "_held",
        "_index",
        "_missed",
        "_refused",
        "_restart",
        "_send",
        "_spawn",
        "_subscriptions",
        "_task",
        "_woken",
    )

    def __init__(
        self,
        template: SessionTemplate,
        number: int,
        send: Callable[[str, bytes], Awaitable[Message]],
        catch_up: Callable[[Interest], None],
    ) -> None:
        self._containment = template.containment
        self._index = number
        self._subscriptions = template.knowledge.subscriptions
        self._send = send
        self._catch_up = catch_up
        self._restart = template.config.restart
        self._faults = template.knowledge.faults
        self._held: set[str] = set()
        # What an earlier session held and this one does not yet: what became of it meanwhile, nobody knows.
        self._missed: set[str] = set()
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
        self._missed.update(self._subscriptions.heard.pop(self._index, Interest()).uris)
        self._subscriptions.watch(self._wake)
        self._wake()

    def close(self) -> None:
        """Begin nothing any more, and leave to the next session what this one held; idempotent."""
        if self._spawn is not None:
            self._spawn = None
            self._subscriptions.unwatch(self._wake)
            self._subscriptions.heard[self._index] = Interest(uris=frozenset(self._held | self._missed))

    def _wake(self) -> None:
        self._woken.set()
        if self._task is None and self._spawn is not None and (self._held or self._subscriptions.wanted.uris):
            self._task = self._spawn(self._run())

    async def _run(self) -> None:
        """Keep the session's subscriptions until cancelled, or until the server knows the session no more.

        What an earlier session held is told as updated once this one holds it.
        """
        failures = 0
        while True:
            self._woken.clear()
            try:
                await self._adjust()
            except SessionLostError:
                # It is replaced with the next call, and its replacement begins anew.
                return
            except Exception as error:
                # Also what nobody foresaw must not be the end of all subscriptions.
                self._containment.failure(error, "unknown")
                delay_s: float | None = self._delay_s(failures)
                failures += 1
            else:
                delay_s = None
                failures = 0
            regained = self._missed & self._held
            if regained:
                self._missed -= regained
                self._catch_up(Interest(uris=frozenset(regained)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._woken.wait()

    async def _adjust(self) -> None:
        """Subscribe to what is wanted and not held, and unsubscribe from the opposite; raises :class:`CallError`.

        Callers go on meanwhile: what they subscribe to and unsubscribe from by themselves is looked at each time.
        """
        subscriptions = self._subscriptions
        wanted = subscriptions.wanted.uris
        self._refused &= wanted
        self._missed &= wanted
        for uri in sorted(wanted - self._held - self._refused):
            if uri in self._held or not subscriptions.wants(uri):
                continue
            taken = self._held if await self._ask(methods.SUBSCRIBE, uri) else self._refused
            taken.add(uri)
        for uri in sorted(self._held - subscriptions.wanted.uris):
            if subscriptions.wants(uri):
                continue
            self._held.discard(uri)
            await self._ask(methods.UNSUBSCRIBE, uri)
            # Whoever has subscribed meanwhile may have been heard before: it is asked for once more.
            self._held.discard(uri)

    async def _ask(self, method: str, uri: str) -> bool:
        reply = await self._send(method, msgspec.json.encode({"uri": uri}))
        if reply.kind == ERROR:
            self._faults.count("a subscription was refused", f"{method}: JSON-RPC error {reply.error_code}")
            return False
        return True

    def _delay_s(self, failures: int) -> float:
        restart = self._restart
        return backoff_delay(failures, restart.initial_s, restart.max_s, restart.jitter, random.random())
