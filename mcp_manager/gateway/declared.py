"""Whether a client has declared what a server asks it for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_manager.errors import RpcError
from mcp_manager.protocol.capabilities import undeclared
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.methods import LIST_ROOTS, SAMPLE

__all__ = ["check_declared"]

# What questions need beyond the modes of elicitation.
_NEEDED: Final = {SAMPLE: "sampling", LIST_ROOTS: "roots"}


def check_declared(method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any]) -> None:
    """Raise an :class:`RpcError` for the server if a question needs what the client has not declared."""
    needed = _NEEDED.get(method)
    missing = needed if needed is not None and needed not in capabilities else undeclared(method, params, capabilities)
    if missing:
        raise RpcError(INVALID_PARAMS, f"Invalid params: the client did not declare {missing}")
