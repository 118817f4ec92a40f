"""Requests that a server answers once its user has been to a URL: asked for, waited for, and sent once more."""

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

# What was completed before anybody waited for it: the news may come right behind the error.
_MAX_KEPT: Final = 256


class _Answer(msgspec.Struct):
    action: str


class _Visit:
    """One URL that calls wait for."""

    __slots__ = ("callers", "over")

    def __init__(self) -> None:
        self.callers = 0
        self.over = asyncio.Event()


class UrlElicitations:
    """Drive the error that asks for URLs to be visited (2025-11-25, client/elicitation).

    The request was refused, so that sending it again executes nothing twice.

    Parameters
    ----------
    handler
        Asks the user, with the params of ``elicitation/create``; ``None`` leaves the error to the caller.
    clock
        Monotonic nanoseconds.
    """

    def __init__(self, handler: Handler | None, clock: Callable[[], int]) -> None:
        self._handler = handler
        self._clock = clock
        self._waiting: dict[tuple[str, str], _Visit] = {}
        self._calls: dict[asyncio.Timeout, str] = {}
        self._completed: OrderedDict[tuple[str, str], None] = OrderedDict()

    def completed(self, server_id: str, params: Any) -> None:
        """Take ``notifications/elicitation/complete``; ids that nobody knows are forgotten after a while."""
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
        """Have done what an error asks for, if it asks for that; tell whether its request is worth sending again.

        It is not where the user declines, the handler fails, or the server does not tell before the deadline that it is
        done: servers need not tell. Nor is it where the server is gone.
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
                # It was used up: another refusal with the same id is another visit.
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
        """Wait for nothing more of a server that is gone, or of all of them for ``None``: nobody tells any more."""
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
            # A user's handler may raise anything; the caller gets the server's error, which says what is missing.
            containment.log("the handler of elicitation/create failed", error)
            return False
        try:
            # Whatever is answered to a server's own question may be answered here.
            return bool(msgspec.convert(answer, _Answer, from_attributes=True).action == "accept")
        except msgspec.ValidationError:
            return False

    def _remaining_s(self, deadline_ns: int) -> float:
        return max(0, deadline_ns - self._clock()) / 1e9
