"""Requests on their way between the eras: what ``params._meta`` holds for one era alone (2026-07-28, basic, ``_meta``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.gateway import messages
from mcp_manager.protocol.capabilities import TASKS_EXTENSION

__all__ = ["for_handshake_server", "for_stateless_server", "stateless_declaration"]

_PREFIX: Final = b"io.modelcontextprotocol/"
_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
# A server of the handshake era was told these by initialize. Other members, such as the log level, do no harm there.
_OF_THE_STATELESS_ERA: Final = (
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    _CAPABILITIES,
)

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def for_handshake_server(message: Message) -> Message:
    """Return a request without what a stateless client says of itself; its other members stay, byte for byte."""
    params = message.params
    # An escape may hide the prefix.
    if params is None or (_PREFIX not in params and b"\\" not in params):
        return message
    members, meta = _read(params)
    if meta is None or not any(name in meta for name in _OF_THE_STATELESS_ERA):
        return message
    for name in _OF_THE_STATELESS_ERA:
        meta.pop(name, None)
    if meta:
        members["_meta"] = msgspec.Raw(msgspec.json.encode(meta))
    else:
        del members["_meta"]
    return _with_params(message, members)


def for_stateless_server(message: Message, declaration: bytes) -> Message:
    """Return a request of a handshake client that says what this client can do.

    Parameters
    ----------
    message
        The request.
    declaration
        See :func:`stateless_declaration`.
    """
    params = message.params
    if params is not None and not params.startswith(b"{"):
        return message
    members, meta = _read(params or b"{}")
    if meta is None:
        return message
    members["_meta"] = msgspec.Raw(msgspec.json.encode({**meta, _CAPABILITIES: msgspec.Raw(declaration)}))
    return _with_params(message, members)


def stateless_declaration(capabilities: Mapping[str, Any]) -> bytes:
    """Return the capabilities of a handshake client as stateless servers are told them, as JSON.

    They include the extension for tasks, because the gateway waits for tasks on behalf of these clients; and
    ``roots`` without ``listChanged``, because stateless clients send no notifications.
    """
    declared = dict(capabilities)
    if "roots" in declared:
        declared["roots"] = {}
    declared.pop("tasks", None)
    extensions = declared.get("extensions")
    declared["extensions"] = {TASKS_EXTENSION: {}, **(extensions if isinstance(extensions, Mapping) else {})}
    return msgspec.json.encode(declared)


def _read(params: bytes) -> tuple[dict[str, msgspec.Raw], dict[str, msgspec.Raw] | None]:
    """Return the members of params and those of ``_meta``, ``None`` if either is not an object."""
    try:
        members = _members_decoder.decode(params)
        return members, _members_decoder.decode(members.get("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return {}, None


def _with_params(message: Message, members: dict[str, msgspec.Raw]) -> Message:
    assert message.method is not None
    params = msgspec.json.encode(members)
    if message.id_raw is None:
        return scan(messages.notification(message.method, params))
    return scan(messages.request(message.id_raw, message.method, params))
