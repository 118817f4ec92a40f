"""The records of resources and their contents."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mcp_manager.results.base64_data import bytes_of
from mcp_manager.results.record import CacheableResult, Icon, Record

__all__ = ["Annotations", "ReadResourceResult", "Resource", "ResourceContents", "ResourceTemplate"]


class Annotations(Record, frozen=True, kw_only=True):
    """Hints on how to use a resource or block of content.

    Parameters
    ----------
    audience
        Whom it is for: ``user``, ``assistant`` or both; or ``None``.
    priority
        How important it is, from 0 to 1; or ``None``.
    last_modified
        When it last changed, in ISO 8601; or ``None``.
    """

    audience: list[Literal["user", "assistant"]] | None = None
    priority: int | float | None = None
    last_modified: str | None = None


class Resource(Record, frozen=True, kw_only=True):
    """One entry of ``resources/list``.

    Parameters
    ----------
    uri
        The resource's URI.
    name
        Its name.
    title, description
        Texts for people, or ``None``.
    mime_type
        Its media type, or ``None``.
    size
        Its size in bytes, or ``None``.
    annotations
        Hints on how to use it, or ``None``.
    icons
        Pictures for a user interface, or ``None``.
    meta
        The entry's ``_meta``, or ``None``.
    """

    uri: str
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | float | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class ResourceTemplate(Record, frozen=True, kw_only=True):
    """One entry of ``resources/templates/list``.

    Parameters
    ----------
    uri_template
        The template of its URIs (RFC 6570).
    name, title, description, mime_type, annotations, icons, meta
        See :class:`Resource`.
    """

    uri_template: str
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class ResourceContents(Record, frozen=True, kw_only=True):
    """The contents of a resource, or of a part of it.

    Parameters
    ----------
    uri
        The resource's URI.
    mime_type
        Its media type, or ``None``.
    text
        The contents as text, or ``None``.
    blob
        Binary contents in base64, or ``None``.
    meta
        The ``_meta`` of the contents, or ``None``.
    """

    uri: str = ""
    mime_type: str | None = None
    text: str | None = None
    blob: str | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")

    def to_bytes(self) -> bytes:
        """Return the contents as bytes: the decoded ``blob``, else ``text`` in UTF-8; empty if there is neither.

        Raises
        ------
        ProtocolError
            ``blob`` is not base64.
        """
        if self.blob is not None:
            return bytes_of(self.blob, "the blob of a resource")
        return (self.text or "").encode("utf-8", "replace")


class ReadResourceResult(CacheableResult, frozen=True, kw_only=True):
    """The result of ``resources/read``.

    Parameters
    ----------
    contents
        The contents, in one or several parts.
    ttl_ms, cache_scope, result_type, meta
        See :class:`DiscoverResult`.
    """

    contents: list[ResourceContents] = msgspec.field(default_factory=list)

    @property
    def text(self) -> str:
        """The parts that are text, joined by newlines."""
        return "\n".join(part.text for part in self.contents if part.text is not None)
