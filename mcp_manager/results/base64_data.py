"""The bytes behind base64 text in results."""

from __future__ import annotations

import binascii

from mcp_manager.errors import ProtocolError

__all__ = ["bytes_of"]


def bytes_of(text: str, what: str) -> bytes:
    """Decode base64, in the standard or the URL-safe alphabet, padded or not.

    Parameters
    ----------
    text
        The base64 text; white space in it is skipped.
    what
        What it is, for the error.

    Raises
    ------
    ProtocolError
        It is not base64.
    """
    compact = "".join(text.split()).rstrip("=").translate(_STANDARD)
    try:
        return binascii.a2b_base64(compact.encode("ascii") + b"=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:
        reason = "it contains other characters" if isinstance(error, UnicodeEncodeError) else str(error)
        raise ProtocolError(f"{what} is not base64: {reason}", delivery="answered") from None


_STANDARD = str.maketrans("-_", "+/")
