"""Callers that call continuously, each call with its own text, and record the outcome of each call."""

from __future__ import annotations

import asyncio
import itertools
from typing import Self

from support.calls import echo, text_of

from mcp_manager import McpManager
from mcp_manager.errors import McpManagerError

__all__ = ["Traffic"]


class Traffic:
    """Call the tool ``echo`` of a server from several tasks until the end of the ``async with``.

    ``answered`` are the texts that came back, ``failures`` the errors by text. A wrong answer fails the test.
    """

    def __init__(self, manager: McpManager, server_id: str, *, callers: int = 4, name: str = "call") -> None:
        self._manager = manager
        self._server_id = server_id
        self._callers = callers
        self._names = (f"{name} {number}" for number in itertools.count())
        self._progress = asyncio.Condition()
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answered: list[str] = []
        self.failures: dict[str, McpManagerError] = {}

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def goes_on(self, calls: int = 20) -> None:
        """Wait until ``calls`` more calls have ended."""
        end = self._ended + calls
        async with self._progress, asyncio.timeout(30):
            await self._progress.wait_for(lambda: self._ended >= end or any(task.done() for task in self._tasks))

    @property
    def _ended(self) -> int:
        return len(self.answered) + len(self.failures)

    async def _call(self) -> None:
        while not self._is_over:
            text = next(self._names)
            try:
                reply = await self._manager.execute_raw(self._server_id, echo(text), timeout=30)
            except McpManagerError as error:
                self.failures[text] = error
                # Calls that are refused at once would otherwise keep the loop from running anything else.
                await asyncio.sleep(0)
            else:
                assert text_of(reply) == text
                self.answered.append(text)
            async with self._progress:
                self._progress.notify_all()
