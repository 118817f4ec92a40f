"""Resources: what there is to read, and what was read."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.results.record import CacheableResult, Icon, Record

__all__ = ["Annotations", "ReadResourceResult", "Resource", "ResourceContents", "ResourceTemplate"]


class Annotations(Record, frozen=True, kw_only=True):
    """For whom content is, how much it matters (0 to 1), and when it changed last (ISO 8601)."""

    audience: list[str] | None = None
    priority: int | float | None = None
    last_modified: str | None = None


class Resource(Record, frozen=True, kw_only=True):
    """One entry of ``resources/list``; ``size`` is in bytes."""

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
    """One entry of ``resources/templates/list``."""

    uri_template: str
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class ResourceContents(Record, frozen=True, kw_only=True):
    """Contents of a resource: ``text``, or ``blob`` in base64."""

    uri: str = ""
    mime_type: str | None = None
    text: str | None = None
    blob: str | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class ReadResourceResult(CacheableResult, frozen=True, kw_only=True):
    """What was read, in one part or several."""

    contents: list[ResourceContents] = msgspec.field(default_factory=list)
