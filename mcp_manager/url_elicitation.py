"""Requests that a server answers once its user has been to a URL: asked for, waited for, and sent once more."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.protocol.error_codes import URL_ELICITATION_REQUIRED
from mcp_manager.protocol.rpc_error import read_error, read_url_elicitations
from mcp_manager.session.handlers import Handler, TookTooLongError, outcome, start_handler

__all__ = ["UrlElicitations"]

_log = logging.getLogger(__name__)

# What was completed before anybody waited for it: the news may come right behind the error.
_MAX_KEPT: Final = 256


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
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}
        self._completed: OrderedDict[tuple[str, str], None] = OrderedDict()

    def completed(self, server_id: str, params: Any) -> None:
        """Take ``notifications/elicitation/complete``; ids that nobody knows are forgotten after a while."""
        elicitation_id = params.get("elicitationId")
        if not isinstance(elicitation_id, str):
            return
        key = server_id, elicitation_id
        if key in self._waiting:
            self._waiting[key].set()
            return
        self._completed[key] = None
        if len(self._completed) > _MAX_KEPT:
            self._completed.popitem(last=False)

    async def satisfied(self, server_id: str, reply: Message, deadline_ns: int) -> bool:
        """Have done what an error asks for, if it asks for that; tell whether its request is worth sending again.

        It is not where the user declines, the handler fails, or the server does not tell before the deadline that it is
        done: servers need not tell.
        """
        if self._handler is None or reply.kind != ERROR or reply.error_code != URL_ELICITATION_REQUIRED:
            return False
        elicitations = read_url_elicitations(read_error(reply.error or b""))
        events = {(server_id, each["elicitationId"]): asyncio.Event() for each in elicitations}
        events = {key: self._waiting.setdefault(key, event) for key, event in events.items()}
        try:
            async with asyncio.timeout(self._remaining_s(deadline_ns)):
                for params in elicitations:
                    if not await self._accepted(self._handler, server_id, params, deadline_ns):
                        return False
                for key, event in events.items():
                    if self._completed.pop(key, key) is not None:
                        await event.wait()
        except TimeoutError:
            return False
        finally:
            for key in events:
                self._waiting.pop(key, None)
        return bool(elicitations)

    async def _accepted(self, handler: Handler, server_id: str, params: dict[str, Any], deadline_ns: int) -> bool:
        try:
            answer = await outcome(start_handler(handler, server_id, params), self._remaining_s(deadline_ns))
        except TookTooLongError:
            return False
        except Exception:
            # A user's handler may raise anything; the caller gets the server's error, which says what is missing.
            _log.exception("the handler of elicitation/create failed")
            return False
        return isinstance(answer, dict) and answer.get("action") == "accept"

    def _remaining_s(self, deadline_ns: int) -> float:
        return max(0, deadline_ns - self._clock()) / 1e9
