"""Prompts, and the completion of arguments."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.results.content import ContentBlock
from mcp_manager.results.record import Icon, Record, Result

__all__ = ["CompleteResult", "Completion", "GetPromptResult", "Prompt", "PromptArgument", "PromptMessage"]


class PromptArgument(Record, frozen=True, kw_only=True):
    """What a prompt can be filled in with."""

    name: str
    title: str | None = None
    description: str | None = None
    required: bool = False


class Prompt(Record, frozen=True, kw_only=True):
    """One entry of ``prompts/list``."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[PromptArgument] | None = None
    icons: list[Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class PromptMessage(Record, frozen=True, kw_only=True):
    """One message of a prompt."""

    role: str
    content: ContentBlock


class GetPromptResult(Result, frozen=True, kw_only=True):
    """A prompt, filled in."""

    messages: list[PromptMessage] = msgspec.field(default_factory=list)
    description: str | None = None


class Completion(Record, frozen=True, kw_only=True):
    """Proposed values, at most 100 at a time, and how many there are in all."""

    values: list[str] = msgspec.field(default_factory=list)
    total: int | float | None = None
    has_more: bool = False


class CompleteResult(Result, frozen=True, kw_only=True):
    """Proposals for a prompt's or template's argument."""

    completion: Completion = msgspec.field(default_factory=Completion)
