"""The manager of a test that is not async."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mcp_manager.bindings import PyMcpManager
from mcp_manager.config import ManagerConfig

__all__ = ["started"]


@contextlib.contextmanager
def started(config: ManagerConfig | None) -> Iterator[PyMcpManager]:
    """Start a manager, and stop it at the end of the context."""
    with PyMcpManager(config) as manager:
        yield manager
