"""The JSON-RPC error codes that the client acts on (2026-07-28, basic, error codes)."""

from __future__ import annotations

from typing import Final

__all__ = [
    "HEADER_MISMATCH",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "MISSING_CAPABILITY",
    "PARSE_ERROR",
    "STATELESS_ERRORS",
    "UNSUPPORTED_VERSION",
    "URL_ELICITATION_REQUIRED",
]

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
# 2025-11-25, client/elicitation: the user must visit a URL first.
URL_ELICITATION_REQUIRED: Final = -32042

STATELESS_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION})
"""Only servers of a stateless revision answer with these; the client does not use them for its own errors."""
