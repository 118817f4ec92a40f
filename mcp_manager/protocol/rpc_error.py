"""The error object of JSON-RPC 2.0, section 5.1, as a server sent it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager.config.redaction import Secrets, printable
from mcp_manager.errors import RpcError, UrlElicitationRequiredError
from mcp_manager.protocol.error_codes import URL_ELICITATION_REQUIRED
from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["ErrorObject", "error_text", "read_error", "read_url_elicitations", "rpc_error"]

_QUOTE: Final = 200
_MAX_ELICITATIONS: Final = 64


class ErrorObject(msgspec.Struct, frozen=True):
    """A decoded error object."""

    code: int = 0
    message: str = ""
    data: Any = None


_decoder = JsonDecoder(ErrorObject)


def read_error(error: bytes) -> ErrorObject:
    """Decode an error object; one that cannot be decoded becomes code 0 and says so."""
    try:
        return _decoder.decode(error)
    except (msgspec.DecodeError, RecursionError):
        return ErrorObject(message="a malformed error object")


def error_text(error: bytes) -> str:
    """Quote code and message of an error object, bounded and free of control characters."""
    decoded = read_error(error)
    return f"{printable(decoded.message[:_QUOTE])} (JSON-RPC error {decoded.code})"


def rpc_error(server_id: str, error: bytes, secrets: Secrets | None = None) -> RpcError:
    """Make the exception for an error that answered a typed call; ``secrets`` are masked wherever it quotes them."""
    decoded = read_error(error if secrets is None else secrets.masked_json(error))
    elicitations = read_url_elicitations(decoded)
    if elicitations:
        return UrlElicitationRequiredError(
            decoded.code, decoded.message, decoded.data, server_id=server_id, elicitations=elicitations
        )
    return RpcError(decoded.code, decoded.message, decoded.data, server_id=server_id)


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
