"""Which era a client's message belongs to, from the message alone."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.protocol.revisions import HANDSHAKE_REVISIONS

__all__ = ["is_stateless"]

_VERSION_KEY: Final = b'"io.modelcontextprotocol/protocolVersion"'


class _Meta(msgspec.Struct):
    version: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="io.modelcontextprotocol/protocolVersion")


class _Params(msgspec.Struct):
    meta: _Meta | None = msgspec.field(default=None, name="_meta")


_params_decoder = msgspec.json.Decoder(_Params)


def is_stateless(message: Message, version_field: bytes | None, session_id: bytes | str | None = None) -> bool:
    """Tell whether a message is that of a client of the stateless era (2026-07-28, basic/versioning).

    Its ``_meta`` names a revision; or its header field ``MCP-Protocol-Version`` names one that has no handshake, even
    one that is unknown. A message that carries a session id is that of a handshake client.

    Parameters
    ----------
    message
        The message.
    version_field
        The header field ``MCP-Protocol-Version``; ``None`` without one, and over stdio.
    session_id
        The header field ``Mcp-Session-Id``; ``None`` without one.
    """
    if session_id is not None:
        return False
    if version_field is not None and version_field.decode("latin-1").strip() not in HANDSHAKE_REVISIONS:
        return True
    return _names_revision(message.params)


def _names_revision(params: bytes | None) -> bool:
    if params is None or _VERSION_KEY not in params:
        return False
    try:
        meta = _params_decoder.decode(params).meta
    except (msgspec.DecodeError, RecursionError):
        # The checks of that era say what is wrong.
        return True
    return meta is not None and bool(meta.version)
