"""The records of prompts and of argument completion."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.results.content import ContentBlock
from mcp_manager.results.record import Icon, Record, Result

__all__ = ["CompleteResult", "Completion", "GetPromptResult", "Prompt", "PromptArgument", "PromptMessage"]


class PromptArgument(Record, frozen=True, kw_only=True):
    """One argument of a prompt.

    Parameters
    ----------
    name
        The argument's name.
    title, description
        Texts for people, or ``None``.
    required
        Whether it must be given.
    """

    name: str
    title: str | None = None
    description: str | None = None
    required: bool = False


class Prompt(Record, frozen=True, kw_only=True):
    """One entry of ``prompts/list``.

    Parameters
    ----------
    name
        The prompt's name.
    title, description
        Texts for people, or ``None``.
    arguments
        Its arguments, or ``None``.
    icons
        Pictures for a user interface, or ``None``.
    meta
        The entry's ``_meta``, or ``None``.
    """

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[PromptArgument] | None = None
    icons: list[Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class PromptMessage(Record, frozen=True, kw_only=True):
    """One message of a prompt.

    Parameters
    ----------
    role
        ``user`` or ``assistant``.
    content
        The block of content.
    """

    role: str
    content: ContentBlock


class GetPromptResult(Result, frozen=True, kw_only=True):
    """The result of ``prompts/get``: a prompt with its arguments filled in.

    Parameters
    ----------
    messages
        The messages.
    description
        A text for people, or ``None``.
    result_type, meta
        See :class:`CallToolResult`.
    """

    messages: list[PromptMessage] = msgspec.field(default_factory=list)
    description: str | None = None


class Completion(Record, frozen=True, kw_only=True):
    """Proposed values of an argument.

    Parameters
    ----------
    values
        The proposals, at most 100.
    total
        How many there are in total, or ``None``.
    has_more
        Whether there are more than ``values``.
    """

    values: list[str] = msgspec.field(default_factory=list)
    total: int | float | None = None
    has_more: bool = False


class CompleteResult(Result, frozen=True, kw_only=True):
    """The result of ``completion/complete``.

    Parameters
    ----------
    completion
        The proposals.
    result_type, meta
        See :class:`CallToolResult`.
    """

    completion: Completion = msgspec.field(default_factory=Completion)
