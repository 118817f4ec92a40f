"""The tool calls in a model's reply, which is an object of a vendor's package or plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, NamedTuple

from mcp_manager.adapters.answers import ToolAnswer
from mcp_manager.adapters.toolset import Toolset

__all__ = ["ToolCall", "answer_all", "as_list", "member"]


class ToolCall(NamedTuple):
    """One call that a model wants.

    Attributes
    ----------
    id
        What the answer refers to; ``None`` where the API has no ids.
    name
        The tool.
    arguments
        The arguments by name, or JSON text.
    """

    id: str | None
    name: str
    arguments: Mapping[str, Any] | str | None


async def answer_all(
    toolset: Toolset, calls: Iterable[ToolCall], *, leave_unknown: bool
) -> list[tuple[ToolCall, ToolAnswer]]:
    """Make all calls concurrently and return each with its answer, in their order.

    Parameters
    ----------
    toolset
        The tools.
    calls
        The calls.
    leave_unknown
        Leave out calls of tools that the set does not have; else the model is told that there is no such tool.
    """
    made = [each for each in calls if not leave_unknown or each.name in toolset]
    # All of them end before an error is raised: no call is left behind.
    answers = await asyncio.gather(
        *(toolset.answer(each.name, each.arguments) for each in made), return_exceptions=True
    )
    found = []
    answer = None
    try:
        for call, answer in zip(made, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            found.append((call, answer))
    finally:
        # The traceback of an error holds this frame.
        del answers, answer
    return found


def member(value: object, *names: str) -> Any:
    """Return the first of these members that an object or a mapping has and that is not ``None``.

    Raises
    ------
    TypeError
        The object is a reply that is still to be awaited. Without an error, a model would seem to call no tool.
    """
    if isinstance(value, Awaitable):
        raise TypeError(f"the reply is a {type(value).__name__}: await it first")
    for name in names:
        found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if found is not None:
            return found
    return None


def as_list(value: object) -> list[Any]:
    """Return the entries of a list or tuple; none for anything else."""
    return list(value) if isinstance(value, list | tuple) else []
