"""The handshake: which revision is spoken, and how an endpoint introduces itself to clients of that revision."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.revisions import HANDSHAKE_REVISIONS, LATEST_HANDSHAKE_REVISION

__all__ = ["introduction", "revision_for"]

_SINCE_2025_03_26: Final = frozenset({"completions"})
_SINCE_2025_11_25: Final = frozenset({"tasks", "extensions"})


class _Initialize(msgspec.Struct):
    protocol_version: str = msgspec.field(name="protocolVersion")
    capabilities: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_Initialize)


def revision_for(params: bytes | None) -> tuple[str, dict[str, Any]]:
    """Return the revision that is spoken from now on, and the capabilities of the client.

    That is the client's revision if the gateway knows it, otherwise the newest one with a handshake (2025-11-25,
    basic/lifecycle, version negotiation).

    Parameters
    ----------
    params
        Those of ``initialize``, as JSON.

    Raises
    ------
    RpcError
        They are not what the protocol demands.
    """
    try:
        wanted = _decoder.decode(params or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        text = str(error)
    else:
        known = wanted.protocol_version in HANDSHAKE_REVISIONS
        return wanted.protocol_version if known else LATEST_HANDSHAKE_REVISION, wanted.capabilities
    raise RpcError(INVALID_PARAMS, f"Invalid params of initialize: {text}", {"source": "gateway"})


async def introduction(endpoint: Endpoint, client: Client) -> bytes:
    """Return the result of ``initialize`` at an endpoint, as JSON, with what the client's revision knows."""
    description = await endpoint.describe(client)
    result: dict[str, Any] = {
        "protocolVersion": client.revision,
        "capabilities": _known(description.capabilities, client.revision),
        "serverInfo": description.server_info,
    }
    if description.instructions is not None:
        result["instructions"] = description.instructions
    return msgspec.json.encode(result)


def _known(capabilities: dict[str, Any], revision: str) -> dict[str, Any]:
    unknown: frozenset[str] = frozenset()
    if revision != LATEST_HANDSHAKE_REVISION:
        unknown |= _SINCE_2025_11_25
    if revision in ("2024-11-05", "2024-10-07"):
        unknown |= _SINCE_2025_03_26
    return {name: value for name, value in capabilities.items() if name not in unknown}
