"""The manager of a test that is not async."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mcp_manager.bindings import PyMcpManager
from mcp_manager.config import ManagerConfig

__all__ = ["started"]


@contextlib.contextmanager
def started(config: ManagerConfig | None) -> Iterator[PyMcpManager]:
    """Start a manager, and stop it at the end of the context."""
    with tempfile.TemporaryDirectory() as folder:
        path = None
        if config is not None:
            path = Path(folder, "fleet.json")
            settings = msgspec.to_builtins(config)
            servers = settings.pop("servers", {})
            path.write_bytes(msgspec.json.encode({"manager": settings, "servers": servers}))
        with PyMcpManager(path) as manager:
            yield manager
