"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

from mcp_manager.types import SequenceNotStr

__all__ = ["IssuerFields"]


class IssuerFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.IssuerConfig`, as keyword arguments or as a mapping."""

    issuer: str | None
    """The issuer identifier, as ``iss`` in its tokens has it. The gateway tells it to clients (RFC 9728)."""
    audience: SequenceNotStr[str]
    """As for :class:`ClientAuthConfig`. Default: the value of ``serve.auth``."""
    jwks_url: str | None
    """The URL of its signing keys. Default: from its metadata."""
    algorithms: SequenceNotStr[str]
    """As for :class:`ClientAuthConfig`. Default: the value of ``serve.auth``."""
    principal_claim: str | None
    """As for :class:`ClientAuthConfig`. Default: the value of ``serve.auth``."""
    ca_file: str | None
    """As for :class:`ClientAuthConfig`. Default: the value of ``serve.auth``."""
