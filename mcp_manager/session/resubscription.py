"""The resource subscriptions of one session in the handshake era (2025-11-25, server/resources)."""

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
    """Return the ``uri`` in the params of a request, ``None`` if there is none."""
    try:
        return _params_decoder.decode(params or b"{}").uri
    except (msgspec.DecodeError, RecursionError):
        return None


class Resubscription:
    """Keep one session subscribed to exactly the resources that are wanted of its server.

    A subscription lasts as long as its session, so every new session subscribes again.

    Parameters
    ----------
    template
        The template of the server's sessions: it knows what is wanted, and the delays before a failed request is
        repeated.
    number
        The number of the instance that the session belongs to.
    send
        ``await send(method, params)`` sends a request and returns its reply.
    catch_up
        ``catch_up(interest)`` treats as changed whatever may have changed while it was not subscribed.
    """

    __slots__ = (
        "_catch_up",
        "_containment",
        "_faults",
        "_held",
        "_index",
        "_missed",
        "_refused",
        "_send",
        "_spawn",
        "_subscriptions",
        "_task",
        "_template",
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
        self._template = template
        self._faults = template.knowledge.faults
        self._held: set[str] = set()
        # What an earlier session held and this one does not hold yet: updates of it may have been missed.
        self._missed: set[str] = set()
        self._refused: set[str] = set()
        self._woken = asyncio.Event()
        self._spawn: Spawn | None = None
        self._task: asyncio.Task[None] | None = None

    async def noted(self, method: str, params: bytes | None, sending: Awaitable[Message]) -> Message:
        """Return the reply to a caller's ``method``; if the server accepted it, other sessions follow."""
        reply = await sending
        uri = read_uri(params)
        if reply.kind != ERROR and uri is not None:
            self._note_accepted(method, uri)
        return reply

    def _note_accepted(self, method: str, uri: str) -> None:
        if method == methods.SUBSCRIBE:
            self._held.add(uri)
            self._subscriptions.add(uri)
        else:
            self._held.discard(uri)
            self._subscriptions.discard(uri)

    def start(self, spawn: Spawn) -> None:
        """Keep the subscriptions whenever there are any, in a task of ``spawn``; the owner of that task cancels it."""
        self._spawn = spawn
        self._missed.update(self._subscriptions.heard.pop(self._index, Interest()).uris)
        self._subscriptions.watch(self._wake)
        self._wake()

    def close(self) -> None:
        """Send no more requests, and leave a note of what was held for the next session; idempotent."""
        if self._spawn is not None:
            self._spawn = None
            self._subscriptions.unwatch(self._wake)
            self._subscriptions.heard[self._index] = Interest(uris=frozenset(self._held | self._missed))

    def _wake(self) -> None:
        self._woken.set()
        if self._task is None and self._spawn is not None and (self._held or self._subscriptions.wanted.uris):
            self._task = self._spawn(self._run())

    async def _run(self) -> None:
        """Keep the session's subscriptions until cancelled, or until the session is lost.

        Whatever an earlier session held is reported as updated once this session holds it.
        """
        failures = 0
        while True:
            self._woken.clear()
            try:
                await self._adjust()
            except SessionLostError:
                # The next call replaces the session, and the new session subscribes again.
                return
            except Exception as error:
                # Not even an unexpected failure may end all subscriptions.
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
        """Subscribe to what is wanted and not held, and unsubscribe from what is held and not wanted.

        Callers may subscribe and unsubscribe in between, so the state is checked again before each request. Raises
        :class:`CallError`.
        """
        subscriptions = self._subscriptions
        wanted = subscriptions.wanted.uris
        self._refused &= wanted
        self._missed &= wanted
        for uri in sorted(wanted - self._held - self._refused):
            if uri in self._held or not subscriptions.wants(uri):
                continue
            outcome = self._held if await self._is_accepted(methods.SUBSCRIBE, uri) else self._refused
            outcome.add(uri)
        for uri in sorted(self._held - subscriptions.wanted.uris):
            if subscriptions.wants(uri):
                continue
            self._held.discard(uri)
            await self._is_accepted(methods.UNSUBSCRIBE, uri)
            # A caller may have subscribed in between, and the server may have handled that first: subscribe once more.
            self._held.discard(uri)

    async def _is_accepted(self, method: str, uri: str) -> bool:
        reply = await self._send(method, msgspec.json.encode({"uri": uri}))
        if reply.kind == ERROR:
            self._faults.count("a subscription was refused", f"{method}: JSON-RPC error {reply.error_code}")
            return False
        return True

    def _delay_s(self, failures: int) -> float:
        restart = self._template.config.restart
        return backoff_delay(failures, restart.initial_s, restart.max_s, restart.jitter, random.random())
