"""The encoding of values for HTTP header fields (2026-07-28, streamable HTTP, value encoding)."""

from __future__ import annotations

import base64
import re
from typing import Final

__all__ = ["encode_header_value", "header_line"]

_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_SENTINEL_START: Final = "=?base64?"
_SENTINEL_END: Final = "?="


def encode_header_value(value: str) -> str:
    """Encode a text as a header value: unchanged, or in base64 between ``=?base64?`` and ``?=``.

    Visible ASCII with spaces and tabs inside is unchanged, unless it already looks encoded.
    """
    is_sentinel = value.startswith(_SENTINEL_START) and value.endswith(_SENTINEL_END)
    if not is_sentinel and (not value or _PLAIN.fullmatch(value)):
        return value
    # Lone surrogates have no UTF-8 encoding; surrogatepass keeps them from raising.
    encoded = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii")
    return f"{_SENTINEL_START}{encoded}{_SENTINEL_END}"


def header_line(name: str, value: str) -> bytes:
    """Render one header field with its encoded value and line end."""
    return f"{name}: {encode_header_value(value)}\r\n".encode("ascii")
