"""The tool calls in a model's reply, which is an object of a vendor's package or plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from mcp_manager.adapters.answers import ToolAnswer
from mcp_manager.adapters.toolset import Toolset

__all__ = ["ToolCall", "answer_all", "as_list", "check_reply", "member"]

_Api = Literal["openai_chat", "openai_responses", "anthropic_messages", "gemini"]


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


def check_reply(reply: object, api: _Api) -> None:
    """Refuse what is no reply of an API: to make no calls of it would seem to be the end of a conversation.

    Raises
    ------
    TypeError
        The reply is of another API, or is none, or is still to be awaited.
    """
    found = _api_of(reply)
    if found is not None and found != api:
        raise TypeError(f"the reply is one of another API: mcp_manager.adapters.{found} is for it")
    if found is None and not any(_has(reply, each) for each in _MEMBERS[api]):
        is_parts = isinstance(reply, list | tuple) and api in ("openai_responses", "anthropic_messages")
        if not is_parts:
            raise TypeError(f"a reply of the model is needed, and not {type(reply).__name__}")


_MEMBERS: Final[dict[_Api, tuple[str, ...]]] = {
    "openai_chat": ("choices", "tool_calls", "role"),
    "openai_responses": ("output",),
    "anthropic_messages": ("content",),
    "gemini": ("candidates", "parts"),
}


def _api_of(reply: object) -> _Api | None:
    """Return the API whose reply this is without a doubt."""
    entries = reply if isinstance(reply, list | tuple) else as_list(member(reply, "content"))
    types = [member(each, "type") for each in entries]
    if "tool_use" in types:
        return "anthropic_messages"
    if "function_call" in types or isinstance(member(reply, "output"), list):
        return "openai_responses"
    if as_list(member(reply, "tool_calls")) or isinstance(member(reply, "choices"), list):
        return "openai_chat"
    if isinstance(member(reply, "candidates"), list) or isinstance(member(reply, "parts"), list):
        return "gemini"
    return None


def _has(value: object, name: str) -> bool:
    return name in value if isinstance(value, Mapping) else hasattr(value, name)


def as_list(value: object) -> list[Any]:
    """Return the entries of a list or tuple; none for anything else."""
    return list(value) if isinstance(value, list | tuple) else []
