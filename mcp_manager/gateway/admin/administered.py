"""What the admin API needs of the gateway that it administers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mcp_manager.config import ServeConfig, ViewConfig
from mcp_manager.config.sources import FleetSource
from mcp_manager.fleet import Applied
from mcp_manager.manager import McpManager

__all__ = ["Administered"]


class Administered(Protocol):
    """A gateway; see :class:`~mcp_manager.gateway.gateway.Gateway` for what its members mean."""

    manager: McpManager
    serve: ServeConfig
    views: dict[str, ViewConfig]

    @property
    def url(self) -> str:
        """The URL of the gateway."""

    @property
    def is_draining(self) -> bool:
        """Whether it is about to end."""

    async def reasons(self) -> list[str]:
        """Return why it is not ready to serve."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the page of metrics, and its content type."""

    async def apply(self, config: FleetSource) -> Applied:
        """Make the fleet match a configuration."""

    async def replace_serve(self, serve: ServeConfig | Mapping[str, Any]) -> None:
        """Let what can change while it serves be as in another configuration."""

    def replace_views(self, views: Mapping[str, ViewConfig | Mapping[str, Any]]) -> None:
        """Serve these views from now on."""
