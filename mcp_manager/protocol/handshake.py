"""The ``initialize`` handshake of the stateful revisions (2025-11-25, basic/lifecycle)."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.revisions import HANDSHAKE_REVISIONS, LATEST_HANDSHAKE_REVISION
from mcp_manager.serialization import Serializable

__all__ = [
    "ClientIdentity",
    "HandshakeError",
    "Implementation",
    "ServerIdentity",
    "initialize_params",
    "read_initialize_result",
]


class HandshakeError(Exception):
    """The server's answer to ``initialize`` is unusable; the message says why."""


class ClientIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The name and version that the manager sends to every server, and its capabilities in either era."""

    name: str
    version: str
    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    stateless_capabilities: dict[str, Any] = msgspec.field(default_factory=dict)


class ServerIdentity(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """What a server says about itself, in the handshake or in reply to ``server/discover``.

    ``info`` is all that it says of its implementation: ``name``, ``version``, and perhaps ``title``, ``icons`` and
    more, as it came.
    """

    protocol_version: str
    name: str
    version: str
    capabilities: dict[str, Any]
    instructions: str | None
    info: dict[str, Any] = msgspec.field(default_factory=dict)


class Implementation(msgspec.Struct, frozen=True):
    """Name and version of a client or server."""

    name: str = ""
    version: str = ""


class _InitializeResult(msgspec.Struct, rename="camel"):
    protocol_version: str
    # Any, so that a wrong type does not make the server unusable: many send null or a number for what they lack.
    capabilities: Any = None
    server_info: Any = None
    instructions: Any = None


_result_decoder = JsonDecoder(_InitializeResult)


def initialize_params(client: ClientIdentity, revision: str = LATEST_HANDSHAKE_REVISION) -> bytes:
    """Encode the ``params`` of an ``initialize`` request that offers a revision."""
    return orjson.dumps(
        {
            "protocolVersion": revision,
            "capabilities": client.capabilities,
            "clientInfo": {"name": client.name, "version": client.version},
        }
    )


def read_initialize_result(result: bytes) -> ServerIdentity:
    """Decode an ``initialize`` result, and check the revision that it names.

    The server repeats the offered revision or names another one (lifecycle, version negotiation).

    Raises
    ------
    HandshakeError
        The result is not an object with a string ``protocolVersion``, or names a revision without a handshake.
    """
    try:
        decoded = _result_decoder.decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise HandshakeError(f"the result of initialize is malformed: {error}") from None
    if decoded.protocol_version not in HANDSHAKE_REVISIONS:
        known = ", ".join(sorted(HANDSHAKE_REVISIONS))
        raise HandshakeError(
            f"the server answered with protocol version {decoded.protocol_version[:40]!r}; supported are {known}"
        )
    info = decoded.server_info if isinstance(decoded.server_info, dict) else {}
    return ServerIdentity(
        protocol_version=decoded.protocol_version,
        name=_text(info.get("name")),
        version=_text(info.get("version")),
        capabilities=decoded.capabilities if isinstance(decoded.capabilities, dict) else {},
        instructions=decoded.instructions if isinstance(decoded.instructions, str) else None,
        info=info,
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
