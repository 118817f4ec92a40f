"""The replacement of a server's configuration that is in progress."""

from __future__ import annotations

import asyncio

from mcp_manager.session import SessionTemplate

__all__ = ["Change"]


class Change:
    """A rollout in progress.

    Parameters
    ----------
    before, template
        The session settings of the old and of the new configuration.
    desired_before
        How many instances were wanted before the rollout.
    task
        The task that runs the rollout.

    Attributes
    ----------
    is_scaled
        Whether :meth:`Supervisor.scale` was called during the rollout. Its number then holds, whatever the outcome.
    """

    __slots__ = ("before", "desired_before", "is_scaled", "task", "template")

    def __init__(
        self, before: SessionTemplate, template: SessionTemplate, desired_before: int, task: asyncio.Task[None]
    ) -> None:
        self.before: SessionTemplate = before
        self.template: SessionTemplate = template
        self.desired_before: int = desired_before
        self.task: asyncio.Task[None] = task
        self.is_scaled: bool = False
