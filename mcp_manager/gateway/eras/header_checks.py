"""The header fields that repeat what the body of a request says (2026-07-28, streamable HTTP, request metadata)."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from mcp_manager.errors import RpcError
from mcp_manager.gateway.channels import Incoming
from mcp_manager.protocol.error_codes import HEADER_MISMATCH

__all__ = ["check_headers", "decoded_field", "mismatch"]

_START: Final = b"=?base64?"
_END: Final = b"?="


def check_headers(incoming: Incoming, revision: str, method: str, name: str | None) -> None:
    """Check the header fields of a request against its body.

    Parameters
    ----------
    incoming
        The HTTP request.
    revision, method, name
        What the body says; ``name`` is ``None`` if it names no tool, prompt, resource or task.

    Raises
    ------
    RpcError
        -32020: a field is missing or says something else.
    """
    header = incoming.header
    if not _says(header(b"mcp-protocol-version"), revision):
        raise mismatch("MCP-Protocol-Version")
    if not _says(header(b"mcp-method"), method):
        raise mismatch("Mcp-Method")
    if name is not None:
        field = header(b"mcp-name")
        if field is None or decoded_field(field) != name:
            raise mismatch("Mcp-Name")


def decoded_field(value: bytes) -> str | None:
    """Decode the value of a header field (2026-07-28, streamable HTTP, value encoding).

    White space around it does not count (RFC 9110, section 5.5). A value between ``=?base64?`` and ``?=`` is Base64
    with padding; any other one is taken literally.

    Returns
    -------
    The text; ``None`` if it is not valid Base64 or not UTF-8.
    """
    value = value.strip(b" \t")
    try:
        if value.startswith(_START) and value.endswith(_END) and len(value) >= len(_START) + len(_END):
            value = base64.b64decode(value[len(_START) : -len(_END)], validate=True)
        return value.decode()
    except (binascii.Error, ValueError):
        return None


def mismatch(field: str) -> RpcError:
    """Return the error for a header field that does not say what the body says."""
    return RpcError(HEADER_MISMATCH, f"The header {field} is missing or differs from the body", {"source": "gateway"})


def _says(field: bytes | None, text: str) -> bool:
    """Tell whether a field has this value, which is never encoded."""
    if field is None:
        return False
    expected = text.encode("utf-8", "surrogatepass")
    return field == expected or field.strip(b" \t") == expected
