"""The error object of JSON-RPC 2.0, section 5.1, as a server sent it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager._core.json_weight import weigh
from mcp_manager._core.mending import error_members
from mcp_manager.config.redaction import Secrets, printable
from mcp_manager.errors import RpcError, UrlElicitationRequiredError
from mcp_manager.protocol.error_codes import URL_ELICITATION_REQUIRED
from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["LONGEST_ERROR", "ErrorObject", "bounded", "error_text", "read_error", "read_url_elicitations", "rpc_error"]

LONGEST_ERROR: Final = 256 * 1024
"""Bytes of an error object that is read as a whole."""
_SHORT: Final = 16 * 1024
_MOST_VALUES: Final = 20_000
_QUOTE: Final = 200
_LONGEST_MESSAGE: Final = 16 * 1024
# In which the longest message is found again after masking, which makes most texts shorter.
_LONGEST_RAW_MESSAGE: Final = 64 * 1024
_LONGEST_ESCAPE: Final = 6
_MAX_ELICITATIONS: Final = 64


class ErrorObject(msgspec.Struct, frozen=True):
    """A decoded error object."""

    code: int = 0
    message: str = ""
    data: Any = None


_decoder = JsonDecoder(ErrorObject)


def read_error(error: bytes) -> ErrorObject:
    """Decode an error object; one that cannot be decoded becomes code 0 and says so. See :func:`bounded` for a long one."""
    try:
        return _decoder.decode(bounded(error))
    except (msgspec.DecodeError, RecursionError):
        return ErrorObject(message="a malformed error object")


def bounded(error: bytes) -> bytes:
    """Return an error object whose message and data take no time to be read.

    An error is shown to people, and read by models: one that is longer than they can read keeps the beginning of its message,
    and its data is left out.
    """
    if len(error) <= _SHORT or (len(error) <= LONGEST_ERROR and weigh(error, _MOST_VALUES)[0] <= _MOST_VALUES):
        return error
    members = error_members(error, _LONGEST_RAW_MESSAGE + 1)
    members.pop("data", None)
    message = members.get("message", b'""')
    if len(message) > _LONGEST_RAW_MESSAGE:
        members["message"] = _beginning_of(message[:_LONGEST_RAW_MESSAGE])
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())


def error_text(error: bytes, secrets: Secrets | None = None) -> str:
    """Quote code and message of an error object, bounded and free of control characters and of ``secrets``."""
    decoded = read_error(error)
    message = decoded.message if secrets is None else secrets.masked_so_far(decoded.message)
    return f"{printable(message[:_QUOTE])} (JSON-RPC error {decoded.code})"


def rpc_error(server_id: str, error: bytes, secrets: Secrets | None = None) -> RpcError:
    """Make the exception for an error that answered a typed call; ``secrets`` are masked wherever it quotes them."""
    text = bounded(error)
    is_cut = text is not error
    decoded = read_error(text if secrets is None else secrets.masked_json(text))
    message = decoded.message
    if len(message) > _LONGEST_MESSAGE:
        # Masked once more: the beginning of a secret may be what is left of it.
        message = (message if secrets is None else secrets.masked_so_far(message))[:_LONGEST_MESSAGE]
        is_cut = True
    elicitations = read_url_elicitations(decoded)
    made: RpcError
    if elicitations:
        made = UrlElicitationRequiredError(
            decoded.code, message, decoded.data, server_id=server_id, elicitations=elicitations
        )
    else:
        made = RpcError(decoded.code, message, decoded.data, server_id=server_id)
    if is_cut:
        made.hint = f"the error has {len(error)} bytes and is cut; execute_raw returns all of it"
    return made


def _beginning_of(text: bytes) -> bytes:
    """Return the beginning of a JSON string that was cut anywhere, as a JSON string."""
    if not text.startswith(b'"'):
        return b'""'
    text = text.decode("utf-8", "ignore").encode()
    # An escape may have been cut in two, and half a surrogate pair be its first half.
    for end in range(len(text), max(len(text) - 2 * _LONGEST_ESCAPE, 1), -1):
        whole = text[:end] + b'"'
        try:
            msgspec.json.decode(whole)
        except msgspec.DecodeError:
            continue
        return whole
    return b'""'


def read_url_elicitations(error: ErrorObject) -> list[dict[str, Any]]:
    """Return what a user must do at which URLs before a request is answered; empty if the error does not say so.

    All of them must have the specified shape, else none of them counts (2025-11-25, client/elicitation, URL elicitation
    required error).
    """
    if error.code != URL_ELICITATION_REQUIRED or not isinstance(error.data, dict):
        return []
    elicitations = error.data.get("elicitations")
    if not isinstance(elicitations, list) or len(elicitations) > _MAX_ELICITATIONS:
        return []
    return elicitations if all(map(_is_url_elicitation, elicitations)) else []


def _is_url_elicitation(params: object) -> bool:
    return (
        isinstance(params, dict)
        and params.get("mode") == "url"
        and all(isinstance(params.get(member), str) for member in ("url", "elicitationId"))
    )
