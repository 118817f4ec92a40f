"""Server objects in memory, by their shape: neither the SDK nor fastmcp is imported, or required."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

__all__ = ["ServerObject", "is_server_object"]


class ServerObject(Protocol):
    """A server in this process: ``Server``, ``MCPServer`` or ``FastMCP`` of the package ``mcp``, or ``fastmcp.FastMCP``.

    It runs on the manager's loop. Its ``name`` becomes the id of the server where none is given.
    """

    @property
    def name(self) -> str:
        """The name that it was made with."""

    @property
    def run(self) -> Callable[..., Any]:
        """The method that serves a session."""


def is_server_object(value: object) -> TypeGuard[ServerObject]:
    """Tell whether a value is a server object in memory."""
    if isinstance(value, type) or not callable(getattr(value, "run", None)):
        return False
    if not isinstance(getattr(value, "name", None), str):
        return False
    inner = (getattr(value, name, None) for name in ("_mcp_server", "_lowlevel_server"))
    return any(callable(getattr(each, "create_initialization_options", None)) for each in (value, *inner))
