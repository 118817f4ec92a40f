"""The gateway: the whole fleet behind one MCP endpoint, for clients and servers of both eras."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp_manager.gateway.gateway import Gateway

__all__ = ["Gateway"]

# Hidden from type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load the class with its first use: parts of this package do without."""
        if name == "Gateway":
            from mcp_manager.gateway.gateway import Gateway  # noqa: PLC0415 - see above

            return Gateway
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
