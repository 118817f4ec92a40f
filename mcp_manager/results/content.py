"""The blocks of content that tools return, prompts contain and models write."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from mcp_manager.results.base64_data import bytes_of
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


class TextContent(_Block, frozen=True, kw_only=True, tag="text"):
    """A block of text.

    Parameters
    ----------
    text
        The text.
    annotations
        Hints on how to use the block, or ``None``.
    meta
        The block's ``_meta``, or ``None``.
    """

    text: str

    @property
    def type(self) -> Literal["text"]:
        """The kind of block: ``text``."""
        return "text"


class ImageContent(_Block, frozen=True, kw_only=True, tag="image"):
    """An image.

    Parameters
    ----------
    data
        The image in base64.
    mime_type
        Its media type, such as ``image/png``.
    annotations, meta
        See :class:`TextContent`.
    """

    data: str
    mime_type: str = ""

    @property
    def type(self) -> Literal["image"]:
        """The kind of block: ``image``."""
        return "image"

    def to_bytes(self) -> bytes:
        """Return the decoded ``data``; raises :class:`ProtocolError` if it is not base64."""
        return bytes_of(self.data, "the data of an image block")


class AudioContent(_Block, frozen=True, kw_only=True, tag="audio"):
    """A sound recording.

    Parameters
    ----------
    data
        The recording in base64.
    mime_type
        Its media type, such as ``audio/wav``.
    annotations, meta
        See :class:`TextContent`.
    """

    data: str
    mime_type: str = ""

    @property
    def type(self) -> Literal["audio"]:
        """The kind of block: ``audio``."""
        return "audio"

    def to_bytes(self) -> bytes:
        """Return the decoded ``data``; raises :class:`ProtocolError` if it is not base64."""
        return bytes_of(self.data, "the data of an audio block")


class ResourceLink(Resource, frozen=True, kw_only=True, tag_field="type", tag="resource_link"):
    """A link to a resource, which ``resources/list`` need not contain (2025-06-18, server/tools).

    Its fields are those of :class:`Resource`.
    """

    @property
    def type(self) -> Literal["resource_link"]:
        """The kind of block: ``resource_link``."""
        return "resource_link"


class EmbeddedResource(_Block, frozen=True, kw_only=True, tag="resource"):
    """A resource with its contents.

    Parameters
    ----------
    resource
        The contents.
    annotations, meta
        See :class:`TextContent`.
    """

    resource: ResourceContents

    @property
    def type(self) -> Literal["resource"]:
        """The kind of block: ``resource``."""
        return "resource"


class ToolUseContent(_Block, frozen=True, kw_only=True, tag="tool_use"):
    """A model's request to call a tool (sampling, 2025-11-25).

    Parameters
    ----------
    id
        Identifies the request; :class:`ToolResultContent` refers to it.
    name
        The tool.
    input
        The arguments.
    annotations, meta
        See :class:`TextContent`.
    """

    id: str
    name: str
    input: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def type(self) -> Literal["tool_use"]:
        """The kind of block: ``tool_use``."""
        return "tool_use"


class ToolResultContent(_Block, frozen=True, kw_only=True, tag="tool_result"):
    """The result of the tool of a :class:`ToolUseContent` (sampling, 2025-11-25).

    Parameters
    ----------
    tool_use_id
        The ``id`` of the :class:`ToolUseContent`.
    content
        The blocks that the tool returned.
    structured_content
        Its structured result, or ``None``.
    is_error
        Whether the tool failed.
    annotations, meta
        See :class:`TextContent`.
    """

    tool_use_id: str
    content: list[ContentBlock] = msgspec.field(default_factory=list)
    structured_content: Any = None
    is_error: bool = False

    @property
    def type(self) -> Literal["tool_result"]:
        """The kind of block: ``tool_result``."""
        return "tool_result"


class UnknownContent(_Block, frozen=True, kw_only=True, tag="unknown"):
    """A block of a kind that this version does not know, or a malformed one.

    ``extra`` holds all of its members; ``annotations`` and ``meta`` are ``None``.
    """

    # Its members are those that the server sent, which may be any.
    _own_schema: ClassVar[dict[str, Any]] = {"title": "UnknownContent", "type": "object"}

    @property
    def type(self) -> Literal["unknown"]:
        """``unknown``, whatever the server sent, so that type checkers can tell it from the known kinds."""
        return "unknown"

    @property
    def received_type(self) -> str:
        """The ``type`` that the server sent; ``""`` if it sent none."""
        sent = self.extra.get("type")
        return sent if isinstance(sent, str) else ""


ContentBlock: TypeAlias = (
    TextContent
    | ImageContent
    | AudioContent
    | ResourceLink
    | EmbeddedResource
    | ToolUseContent
    | ToolResultContent
    | UnknownContent
)
"""One block of content; its ``type`` tells the kinds apart, for ``if``, ``match`` and type checkers.

The specification restricts the kinds in each place; this is not checked."""


class SamplingMessage(Record, frozen=True, kw_only=True):
    """One message of ``sampling/createMessage``; a handler reads it with ``msgspec.convert``.

    Parameters
    ----------
    role
        ``user`` or ``assistant``.
    content
        One block, or several.
    meta
        The message's ``_meta``, or ``None``.
    """

    role: str
    content: ContentBlock | list[ContentBlock]
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")
