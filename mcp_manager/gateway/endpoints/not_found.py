"""What clients are told of names and URIs that nothing has."""

from __future__ import annotations

from typing import Final

from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.revisions import Era

__all__ = ["nearest", "no_resource", "quoted"]

_RESOURCE_NOT_FOUND: Final = -32002
_MOST_COMPARED: Final = 200
_LONGEST_SHOWN: Final = 200


def no_resource(uri: str, client: Client) -> RpcError:
    """Return the error for a resource that no server has, as the era of the client has it."""
    # 2025-11-25, server/resources, error handling; 2026-07-28 has INVALID_PARAMS for it.
    code = _RESOURCE_NOT_FOUND if client.era is Era.HANDSHAKE else INVALID_PARAMS
    return RpcError(code, f"Resource not found: {quoted(uri)}", {"source": "gateway", "uri": quoted(uri)})


def quoted(text: str) -> str:
    """Return what a client sent as a message may quote it: valid, and not too long."""
    shown = text.encode("utf-8", "replace").decode()
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"


def nearest(name: str, names: list[str]) -> list[str]:
    """Return the two names, of the first 200, that a wrong name resembles most."""
    import difflib  # noqa: PLC0415 - not needed unless a name is wrong

    return difflib.get_close_matches(name[:_LONGEST_SHOWN], names[:_MOST_COMPARED], n=2)
