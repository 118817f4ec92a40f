"""Plain data of public records: for ``json``, web frameworks and pydantic."""

from __future__ import annotations

from mcp_manager.serialization.records import ImmutableDict, Serializable, plain
from mcp_manager.serialization.views import View

__all__ = ["ImmutableDict", "Serializable", "View", "plain"]
