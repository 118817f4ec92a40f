"""What stands between a model and the tools: a person who approves calls, and a rule against blind repetition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_manager import CallError, CallToolResult, FleetTool, TextContent
from mcp_manager.adapters import CallNext

Approve = Callable[[FleetTool, Mapping[str, Any]], Awaitable[bool]]
"""Tells whether a call may be made."""

REPETITION: Final = (
    "Not executed: an earlier call of this tool may have been executed. "
    "Look with a tool that only reads, and then decide whether it is still needed."
)
"""What the model is told in place of an answer."""


@dataclass
class UncertainCall:
    """A call that may have been executed.

    Attributes
    ----------
    has_been_checked
        Whether a tool of the same server that only reads has answered since.
    """

    tool: FleetTool
    arguments: Mapping[str, Any]
    has_been_checked: bool = False


class Supervisor:
    """The middleware of a toolset; it remembers the calls of one run.

    Calls of tools that only read are made at once. Any other call needs approval; and it is refused while an earlier
    call of the same tool may have been executed and the model has not looked at the server since.

    The annotations that say what only reads are claims of the server: for one that you do not trust, name the tools
    that need no approval yourself.

    Parameters
    ----------
    approve
        See :data:`Approve`.
    """

    def __init__(self, approve: Approve) -> None:
        self._approve = approve
        self._uncertain: list[UncertainCall] = []

    @property
    def unchecked(self) -> list[UncertainCall]:
        """The calls that may have been executed, and were not looked after."""
        return [each for each in self._uncertain if not each.has_been_checked]

    async def __call__(self, tool: FleetTool, arguments: Mapping[str, Any], call_next: CallNext) -> CallToolResult:
        """Make a call, or return why it is not made."""
        if is_read_only(tool):
            return await self._read(tool, arguments, call_next)
        if self._would_repeat(tool):
            return refusal(REPETITION)
        if not await self._approve(tool, arguments):
            return refusal("Not executed: the user did not approve this call.")
        # Another call of the same reply may have failed while this one waited for its approval.
        if self._would_repeat(tool):
            return refusal(REPETITION)
        try:
            return await call_next(arguments)
        except CallError as error:
            if error.delivery in ("unknown", "answered"):
                self._uncertain.append(UncertainCall(tool, arguments))
            raise
        except asyncio.CancelledError:
            # Of the whole run: by its deadline or by the user.
            self._uncertain.append(UncertainCall(tool, arguments))
            raise

    def _would_repeat(self, tool: FleetTool) -> bool:
        return not is_idempotent(tool) and any(each.tool.name == tool.name for each in self.unchecked)

    async def _read(self, tool: FleetTool, arguments: Mapping[str, Any], call_next: CallNext) -> CallToolResult:
        # A call that is still under way is not seen by this one.
        before = [each for each in self._uncertain if each.tool.server_id == tool.server_id]
        result = await call_next(arguments)
        if not result.is_error:
            for each in before:
                each.has_been_checked = True
        return result


def is_read_only(tool: FleetTool) -> bool:
    """Whether its server says that a tool changes nothing."""
    annotations = tool.tool.annotations
    return annotations is not None and annotations.read_only_hint is True


def is_idempotent(tool: FleetTool) -> bool:
    """Whether its server says that a repeated call has no further effect."""
    annotations = tool.tool.annotations
    return annotations is not None and annotations.idempotent_hint is True


def refusal(text: str) -> CallToolResult:
    """Return the result of a call that is not made."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)
