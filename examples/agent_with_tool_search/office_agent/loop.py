"""The loop of an agent: ask the model, make the calls that it wants, tell it the answers, until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mcp_manager.adapters import Toolset

from .models import Conversation, Model

Ending = Literal["done", "cut off", "turns", "tokens", "deadline"]
"""Why a run ended: the model was done, or its last text was too long, or a bound was reached."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long a run may go on.

    Attributes
    ----------
    turns
        Requests to the model.
    tokens
        Tokens of all requests and replies together. A reply that exceeds it is the last one.
    deadline_s
        Seconds for the whole run: the model, the tools, and the person who approves calls.
    """

    turns: int = 20
    tokens: int = 200_000
    deadline_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended, the model's last text, and what it took."""

    ending: Ending
    text: str
    turns: int
    tokens: int


async def run_agent(
    model: Model, toolset: Toolset, task: str, bounds: Bounds, report: Callable[[str], None]
) -> Outcome:
    """Work on a task until the model is done or a bound is reached.

    A failed call ends nothing: the model is told what happened, and whether the call may have been executed. Errors of
    the model's API are raised, after its client has tried again as often as it is configured to. Cancellation and the
    deadline cancel what is under way, and the servers are told so.
    """
    conversation = model.begin(task, toolset)
    run = _Run(conversation, toolset, bounds, report)
    timer = asyncio.timeout(bounds.deadline_s)
    try:
        async with timer:
            return await run.until_done()
    except TimeoutError:
        if not timer.expired():
            raise
        return run.outcome("deadline")


class _Run:
    def __init__(
        self, conversation: Conversation, toolset: Toolset, bounds: Bounds, report: Callable[[str], None]
    ) -> None:
        self._conversation = conversation
        self._toolset = toolset
        self._bounds = bounds
        self._report = report
        self._text = ""
        self._turns = 0
        self._tokens = 0

    def outcome(self, ending: Ending) -> Outcome:
        return Outcome(ending=ending, text=self._text, turns=self._turns, tokens=self._tokens)

    async def until_done(self) -> Outcome:
        while True:
            reply = await self._conversation.ask()
            self._turns += 1
            self._tokens += reply.tokens
            self._text = reply.text
            for line in (reply.text, *reply.calls):
                if line:
                    self._report(f"[{self._turns}] {line}")
            if reply.is_cut_off:
                # Its calls are incomplete, too.
                return self.outcome("cut off")
            if not reply.calls:
                return self.outcome("done")
            # No call is made whose answer the model would not get to see.
            if self._turns >= self._bounds.turns:
                return self.outcome("turns")
            if self._tokens >= self._bounds.tokens:
                return self.outcome("tokens")
            for answer in await self._conversation.answer(self._toolset):
                self._report(f"    {answer}")
