"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["TlsFields"]


class TlsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.TlsConfig`, as keyword arguments or as a mapping."""

    ca_file: str | None
    """The certificates to trust instead of the system's: a PEM file with one or more, or a directory of such files.
    Default: what Python trusts, which is the system's store or ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
    """
    cert_file: str | None
    """The client certificate with its chain, and its private key, both PEM. Without ``key_file``, ``cert_file`` holds
    both.
    """
    key_file: str | None
    """The client certificate with its chain, and its private key, both PEM. Without ``key_file``, ``cert_file`` holds
    both.
    """
    key_password: str | None
    """The password of an encrypted private key."""
    verify: bool
    """``False`` accepts every certificate, of any issuer and for any name, so that others can read and change the
    traffic. It is logged as a warning and shown by ``server(id)`` and ``snapshot()``. Default: ``True``.
    """
