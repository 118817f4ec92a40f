"""Blocks of content, as tools return them, prompts contain them and models write them."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.results.record import Record
from mcp_manager.results.resources import Annotations, Resource, ResourceContents

__all__ = [
    "Annotations",
    "AudioContent",
    "ContentBlock",
    "EmbeddedResource",
    "ImageContent",
    "ResourceLink",
    "SamplingMessage",
    "TextContent",
    "ToolResultContent",
    "ToolUseContent",
    "UnknownContent",
]


class _Block(Record, frozen=True, kw_only=True, tag_field="type", tag=""):
    annotations: Annotations | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")

    @property
    def type(self) -> str:
        """What kind of block this is, as on the wire."""
        return str(self.__struct_config__.tag)


class TextContent(_Block, frozen=True, kw_only=True, tag="text"):
    """Text."""

    text: str


class ImageContent(_Block, frozen=True, kw_only=True, tag="image"):
    """An image; ``data`` is base64."""

    data: str
    mime_type: str = ""


class AudioContent(_Block, frozen=True, kw_only=True, tag="audio"):
    """A sound; ``data`` is base64."""

    data: str
    mime_type: str = ""


class ResourceLink(Resource, frozen=True, kw_only=True, tag_field="type", tag="resource_link"):
    """A resource to be read if it is wanted; ``resources/list`` need not have it (2025-06-18, server/tools)."""

    @property
    def type(self) -> str:
        """What kind of block this is, as on the wire."""
        return "resource_link"


class EmbeddedResource(_Block, frozen=True, kw_only=True, tag="resource"):
    """A resource with its contents."""

    resource: ResourceContents


class ToolUseContent(_Block, frozen=True, kw_only=True, tag="tool_use"):
    """A model's wish to have a tool called (sampling, 2025-11-25)."""

    id: str
    name: str
    input: dict[str, Any] = msgspec.field(default_factory=dict)


class ToolResultContent(_Block, frozen=True, kw_only=True, tag="tool_result"):
    """What the tool of a :class:`ToolUseContent` returned (sampling, 2025-11-25)."""

    tool_use_id: str
    content: list[ContentBlock] = msgspec.field(default_factory=list)
    structured_content: Any = None
    is_error: bool = False


class UnknownContent(_Block, frozen=True, kw_only=True, tag="unknown"):
    """A block of a kind that this version does not know: all of it is in ``extra``."""

    @property
    def type(self) -> str:
        """What kind of block this is, as on the wire."""
        return str(self.extra.get("type", "unknown"))


ContentBlock = (
    TextContent
    | ImageContent
    | AudioContent
    | ResourceLink
    | EmbeddedResource
    | ToolUseContent
    | ToolResultContent
    | UnknownContent
)
"""One block of content; which ones a place may hold, the specification says, and nobody checks."""


class SamplingMessage(Record, frozen=True, kw_only=True):
    """One message of ``sampling/createMessage``; a handler reads it with ``msgspec.convert``."""

    role: str
    content: ContentBlock | list[ContentBlock]
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")
