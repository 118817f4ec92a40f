"""Requests that were sent to their servers as soon as they came: for most of them no task is ever made.

The general path answers a request in a task. Here, the era sends it at once if everything that it needs is known, and a
callback writes the reply. As soon as anything else happens (a message before the reply, an error, a retry, the end of
the client, a cancellation, the end of the gateway), a task goes on with the same request on the general path, which
alone says what that means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from mcp_manager.calls.begun_exchange import BegunExchange
from mcp_manager.gateway.channels import Channel
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint, Route
from mcp_manager.gateway.sessions.running_calls import Cancellable

__all__ = ["SentRequest", "SentRequests", "failed"]

Work = Coroutine[Any, Any, None]


class SentRequest(Protocol):
    """What an era knows of a request that it has sent."""

    exchange: BegunExchange

    @property
    def client(self) -> Client:
        """Who has sent it."""

    @property
    def endpoint(self) -> Endpoint:
        """Where."""

    @property
    def name(self) -> str:
        """What it names: the tool or prompt."""

    @property
    def route(self) -> Route:
        """Where it went."""

    @property
    def channel(self) -> Channel:
        """The way back."""

    def start(self, waiting: Cancellable) -> None:
        """Let everything that cancels the request cancel ``waiting``."""

    def answered(self, response: bytes) -> None:
        """Send the reply to the client, from the response of the server."""

    def finish(self) -> Work:
        """Return the work that finishes the request on the general path."""

    def cancel(self) -> None:
        """Cancel that work, once it has begun; nothing happens if it has ended."""


class Waiting(Protocol):
    """A request that waits for its reply without a task."""

    def go_on(self) -> None:
        """Let a task finish it. Idempotent."""


class SentRequests:
    """The requests of clients that were sent, and that no task waits for.

    Attributes
    ----------
    is_enabled
        Whether requests are sent at once; otherwise all of them are answered by tasks.
    """

    def __init__(self) -> None:
        self.is_enabled: bool = True
        self.waiting: set[Waiting] = set()
        """What waits for a reply, also in compiled code."""

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, request: SentRequest, context: Context, go_on: Callable[[Work], None]) -> Sent:
        """Answer a request.

        Parameters
        ----------
        request
            The request.
        context
            The context for what is called when the reply is there.
        go_on
            Called once if the request needs a task, with its work.
        """
        sent = Sent(self.waiting, request, go_on)
        request.start(sent)
        future = request.exchange.future
        if future is None:
            sent.go_on()
        else:
            future.add_done_callback(sent.arrived, context=context)
        return sent

    def go_on(self) -> None:
        """Let tasks wait for all of them, as when the gateway drains."""
        for sent in list(self.waiting):
            sent.go_on()


async def failed(error: Exception) -> None:
    """Raise a fault of this program where faults are answered."""
    try:
        raise error
    finally:
        # Its traceback holds this frame.
        del error


class Sent:
    """One request, until its reply is there or a task waits for it."""

    __slots__ = ("_among", "_go_on", "_is_cancelled", "request")

    def __init__(self, among: set[Waiting], request: SentRequest, go_on: Callable[[Work], None]) -> None:
        self._among = among
        self.request: SentRequest = request
        self._go_on = go_on
        self._is_cancelled = False
        among.add(self)

    def arrived(self, future: asyncio.Future[Any]) -> None:
        """Take the answer of the server."""
        if self not in self._among:
            return
        response = self.request.exchange.take()
        if response is None:
            self.go_on()
            return
        self._among.discard(self)
        try:
            self.request.answered(response)
        except Exception as error:
            self._go_on(failed(error))

    def cancel(self) -> None:
        """Cancel the request on the general path."""
        self._is_cancelled = True
        self.go_on()

    def go_on(self) -> None:
        """Let a task finish the request. Idempotent."""
        if self in self._among:
            self._among.discard(self)
            self._go_on(self._finish())

    async def _finish(self) -> None:
        if self._is_cancelled:
            # A task that has not begun cannot clean up.
            asyncio.get_running_loop().call_soon(self.request.cancel)
        await self.request.finish()
