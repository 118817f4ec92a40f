"""Bounded reading of JSON-RPC error objects (JSON-RPC 2.0, section 5.1), and the exceptions made from them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager._core.json_weight import weigh
from mcp_manager._core.mending import error_members
from mcp_manager.config.redaction import Secrets, printable
from mcp_manager.errors import RpcError, UrlElicitationRequiredError
from mcp_manager.protocol.answer_hints import hint_for
from mcp_manager.protocol.error_codes import URL_ELICITATION_REQUIRED
from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["LONGEST_ERROR", "ErrorObject", "bounded", "error_text", "read_error", "read_url_elicitations", "rpc_error"]

LONGEST_ERROR: Final = 256 * 1024
"""The largest error object, in bytes, that is decoded as a whole."""
_SHORT: Final = 16 * 1024
_MOST_VALUES: Final = 20_000
_QUOTE: Final = 200
_LONGEST_MESSAGE: Final = 16 * 1024
# The longest message that is decoded: longer than the longest one kept, because masking shortens it.
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
    """Decode an error object, shortened by :func:`bounded`; a malformed one becomes code 0 with a message."""
    try:
        return _decoder.decode(bounded(error))
    except (msgspec.DecodeError, RecursionError):
        return ErrorObject(message="a malformed error object")


def bounded(error: bytes) -> bytes:
    """Shorten an error object so that decoding it takes no noticeable time.

    A long one keeps the beginning of its message and loses its data: neither people nor models read that much.
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
    """Quote message and code of an error object: shortened, without control characters, with ``secrets`` masked."""
    decoded = read_error(error)
    message = decoded.message if secrets is None else secrets.masked_so_far(decoded.message)
    return f"{printable(message[:_QUOTE])} (JSON-RPC error {decoded.code})"


def rpc_error(server_id: str, error: bytes, secrets: Secrets | None = None) -> RpcError:
    """Make the exception for an error object that answered a typed call, with ``secrets`` masked."""
    text = bounded(error)
    is_cut = text is not error
    decoded = read_error(text if secrets is None else secrets.masked_json(text))
    message = decoded.message
    if len(message) > _LONGEST_MESSAGE:
        # Masked again, because the cut-off message may end within a secret.
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
    made.hint = hint_for(message)
    if is_cut:
        made.hint = f"the error has {len(error)} bytes and was shortened; execute_raw returns all of it"
    return made


def _beginning_of(text: bytes) -> bytes:
    """Return a JSON string that was cut off at any byte as a valid, possibly shorter JSON string."""
    if not text.startswith(b'"'):
        return b'""'
    text = text.decode("utf-8", "ignore").encode()
    # The cut may have split an escape, or a surrogate pair of two escapes.
    for end in range(len(text), max(len(text) - 2 * _LONGEST_ESCAPE, 1), -1):
        whole = text[:end] + b'"'
        try:
            msgspec.json.decode(whole)
        except msgspec.DecodeError:
            continue
        return whole
    return b'""'


def read_url_elicitations(error: ErrorObject) -> list[dict[str, Any]]:
    """Return the URL elicitations that an error requires (2025-11-25, client/elicitation); empty for other errors.

    If one of them does not have the specified shape, the result is empty.
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
