"""A gateway that is one of its own servers: recognized by what it declares to them, since its lists would grow forever."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Final

from mcp_manager.errors import RpcError
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.protocol.error_codes import INVALID_REQUEST

__all__ = ["Mark"]

_EXPERIMENTAL: Final = "experimental"
_NAME: Final = "mcp-manager/gateway"


class Mark:
    """The name of one gateway, which it declares to servers among its experimental capabilities.

    Parameters
    ----------
    secret
        What all worker processes of the gateway know, so that they have one name; "" if there is one process.
    """

    def __init__(self, secret: str = "") -> None:
        self._id: str = blake2b((secret or token_hex(16)).encode(), digest_size=8).hexdigest()

    def among(self, capabilities: Mapping[str, Any]) -> dict[str, Any]:
        """Return capabilities with the mark."""
        return {**capabilities, _EXPERIMENTAL: {_NAME: {"id": self._id}}}

    def check(self, capabilities: Mapping[str, Any], endpoint: Endpoint) -> None:
        """Refuse a client that is this gateway, unless the endpoint cannot lead back to it.

        One worker reaches the program of another one so: see :mod:`mcp_manager.gateway.workers.ownership`.

        Raises
        ------
        RpcError
            It is.
        """
        experimental = capabilities.get(_EXPERIMENTAL)
        mark = experimental.get(_NAME) if isinstance(experimental, dict) else None
        if isinstance(mark, dict) and mark.get("id") == self._id and endpoint.may_lead_back:
            data = {"source": "gateway", "hint": "remove the server whose url is that of the gateway"}
            raise RpcError(INVALID_REQUEST, "This gateway is configured as a server of its own", data)
