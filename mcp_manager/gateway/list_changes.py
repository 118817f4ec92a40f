"""When listeners are told of changed lists: together, after a delay, and only if what is listed has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_manager.gateway.endpoints.base import LooksAgain
from mcp_manager.protocol.methods import PROMPTS_CHANGED, RESOURCES_CHANGED, TOOLS_CHANGED
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["LIST_CHANGES", "Audience", "ListChanges"]

LIST_CHANGES: Final = (TOOLS_CHANGED, PROMPTS_CHANGED, RESOURCES_CHANGED)
"""The notifications about whole lists."""

Audience = tuple[str, str | None]
"""The key of an endpoint, and the principal whose listeners are told, ``None`` for all."""


class _Due:
    """What an audience will be told; ``may_list_others`` says that its tools have to be looked at before."""

    __slots__ = ("may_list_others", "methods", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.methods: set[str] = set()
        self.may_list_others = False
        self.timer = timer


class ListChanges:
    """Collect the changes of lists, and tell each audience of them at most once in a while.

    Parameters
    ----------
    delay_s
        Seconds between notifications about the same list.
    tell
        ``tell(audience, method)`` tells all listeners of an audience.
    look_at
        Returns, by the key of an endpoint that lists only some of its tools, what tells whether it lists others than
        before; ``None`` for an endpoint that lists all.
    """

    def __init__(
        self, delay_s: float, tell: Callable[[Audience, str], None], look_at: Callable[[str], LooksAgain | None]
    ) -> None:
        self.delay_s: float = delay_s
        self._tell = tell
        self._look_at = look_at
        self._due: dict[Audience, _Due] = {}
        self._looking: set[Audience] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, audience: Audience, method: str, *, is_merged: bool, is_certain: bool = False) -> None:
        """Tell an audience of a change: of a merged list later, of that of one server at once if none came before.

        Parameters
        ----------
        audience
            Whom to tell.
        method
            The notification.
        is_merged
            Whether the gateway makes the list.
        is_certain
            Whether the audience is told even if the endpoint lists the same tools as before.
        """
        due = self._due.get(audience)
        if due is None:
            due = self._due[audience] = _Due(self._later(audience))
            if not is_merged:
                self._tell(audience, method)
                return
        if method == TOOLS_CHANGED and not is_certain:
            due.may_list_others = True
        else:
            due.methods.add(method)

    def tell_due(self, audience: Audience) -> None:
        """Tell an audience of what has been added; done when the delay is over."""
        due = self._due.pop(audience)
        if not due.methods and not due.may_list_others:
            return
        # Those that follow have to wait again.
        self._due[audience] = _Due(self._later(audience))
        if due.may_list_others and TOOLS_CHANGED not in due.methods:
            self._look(audience, due)
        for method in LIST_CHANGES:
            if method in due.methods:
                self._tell(audience, method)

    async def aclose(self) -> None:
        """Tell nobody anything more. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for due in self._due.values():
            due.timer.cancel()
        self._due.clear()

    def _later(self, audience: Audience) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self.delay_s, self.tell_due, audience, context=bare_context())

    def _look(self, audience: Audience, due: _Due) -> None:
        lists_others = self._look_at(audience[0])
        if lists_others is None:
            due.methods.add(TOOLS_CHANGED)
        elif audience in self._looking:
            # What has been read may be older than this change.
            self._due[audience].may_list_others = True
        else:
            self._looking.add(audience)
            looking = self._tell_of_others(audience, lists_others)
            background_task(looking, "look at the tools that are listed", among=self._tasks, context=bare_context())

    async def _tell_of_others(self, audience: Audience, lists_others: LooksAgain) -> None:
        try:
            if await lists_others():
                self._tell(audience, TOOLS_CHANGED)
        finally:
            self._looking.discard(audience)
