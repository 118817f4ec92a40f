"""URL elicitation: the handling of requests that a server refuses until the user has visited certain URLs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.protocol.error_codes import URL_ELICITATION_REQUIRED
from mcp_manager.protocol.rpc_error import read_error, read_url_elicitations
from mcp_manager.session.handlers import Handler, TookTooLongError, outcome, start_handler
from mcp_manager.transports.containment import Containment

__all__ = ["UrlElicitations"]

# Notifications that arrive before a call waits for them are kept: a server may send one right after the error.
_MAX_KEPT: Final = 256


class _Answer(msgspec.Struct):
    action: str


class _Visit:
    """A visit to a URL that calls wait for."""

    __slots__ = ("callers", "over")

    def __init__(self) -> None:
        self.callers = 0
        self.over = asyncio.Event()


class UrlElicitations:
    """Handle the error -32042, which asks for visits to URLs (2025-11-25, client/elicitation).

    The server has refused the request without executing it, so it is safe to send it again after the visits.

    Parameters
    ----------
    handler
        Asks the user, with the params of ``elicitation/create``; ``None`` leaves the error to the caller.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(self, handler: Handler | None, clock: Callable[[], int]) -> None:
        self._handler = handler
        self._clock = clock
        self._waiting: dict[tuple[str, str], _Visit] = {}
        self._calls: dict[asyncio.Timeout, str] = {}
        self._completed: OrderedDict[tuple[str, str], None] = OrderedDict()

    def completed(self, server_id: str, params: Any) -> None:
        """Handle ``notifications/elicitation/complete``; the latest 256 ids that no call waits for are kept."""
        elicitation_id = params.get("elicitationId")
        if not isinstance(elicitation_id, str):
            return
        key = server_id, elicitation_id
        if key in self._waiting:
            self._waiting[key].over.set()
            return
        self._completed[key] = None
        if len(self._completed) > _MAX_KEPT:
            self._completed.popitem(last=False)

    async def satisfied(self, containment: Containment, reply: Message, deadline_ns: int) -> bool:
        """Ask the user for the visits that a reply demands and wait for them; tell whether to send the request again.

        The answer is no if the reply demands no visits, the user declines, the handler fails, the server is removed, or
        the server does not report all visits as complete before the deadline (it may never do so).

        Parameters
        ----------
        containment
            Names the server, and logs a handler that fails.
        reply
            The server's reply.
        deadline_ns
            When to stop waiting, in nanoseconds of the clock.
        """
        if self._handler is None or reply.kind != ERROR or reply.error_code != URL_ELICITATION_REQUIRED:
            return False
        elicitations = read_url_elicitations(read_error(reply.error or b""))
        server_id = containment.server_id
        visits = {(server_id, each["elicitationId"]): _Visit() for each in elicitations}
        visits = {key: self._waiting.setdefault(key, visit) for key, visit in visits.items()}
        for key, visit in visits.items():
            visit.callers += 1
            if key in self._completed:
                # Used up: a later error with the same id demands another visit.
                del self._completed[key]
                visit.over.set()
        waiting = asyncio.timeout(self._remaining_s(deadline_ns))
        self._calls[waiting] = server_id
        try:
            async with waiting:
                for params in elicitations:
                    if not await self._accepted(self._handler, containment, params, deadline_ns):
                        return False
                for visit in visits.values():
                    await visit.over.wait()
        except TimeoutError:
            return False
        finally:
            del self._calls[waiting]
            for key, visit in visits.items():
                visit.callers -= 1
                if not visit.callers:
                    del self._waiting[key]
        return bool(elicitations)

    def forget(self, server_id: str | None = None) -> None:
        """End all waits for a server that was removed, or for ``None`` those for all servers."""
        for waiting, each in self._calls.items():
            if (server_id is None or each == server_id) and not waiting.expired():
                waiting.reschedule(0.0)
        if server_id is None:
            self._completed.clear()
        else:
            for key in [key for key in self._completed if key[0] == server_id]:
                del self._completed[key]

    async def _accepted(
        self, handler: Handler, containment: Containment, params: dict[str, Any], deadline_ns: int
    ) -> bool:
        try:
            answer = await outcome(
                start_handler(handler, containment.server_id, params), self._remaining_s(deadline_ns)
            )
        except TookTooLongError:
            return False
        except Exception as error:
            # The handler is the user's code and may raise anything. The caller gets the server's error.
            containment.log("the handler of elicitation/create failed", error)
            return False
        try:
            # A handler may return any type that answers to a server's own requests may have.
            return bool(msgspec.convert(answer, _Answer, from_attributes=True).action == "accept")
        except msgspec.ValidationError:
            return False

    def _remaining_s(self, deadline_ns: int) -> float:
        return max(0, deadline_ns - self._clock()) / 1e9
