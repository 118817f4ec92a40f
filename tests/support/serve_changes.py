"""The configuration of a gateway that serves, with some fields changed."""

from __future__ import annotations

from typing import Any

from mcp_manager.gateway import Gateway

__all__ = ["serve_with"]


def serve_with(gateway: Gateway, **fields: Any) -> dict[str, Any]:
    """What a gateway is served with, but for these fields: for ``replace_serve``."""
    return {**{name: getattr(gateway.serve, name) for name in gateway.serve.__struct_fields__}, **fields}
