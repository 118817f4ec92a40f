"""The TLS configuration of an HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from mcp_manager.config._struct import Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.tls import TlsFields

__all__ = ["TlsConfig"]


class TlsConfig(Settings, frozen=True, kw_only=True):
    """Configure TLS with an ``https`` server or proxy.

    A file that has changed is read again for the next connection. A leading ``~`` stands for the home directory.

    Parameters
    ----------
    ca_file
        The certificates to trust instead of the system's: a PEM file with one or more, or a directory of such files.
        Default: what Python trusts, which is the system's store or ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
    cert_file, key_file
        The client certificate with its chain, and its private key, both PEM. Without ``key_file``, ``cert_file`` holds
        both.
    key_password
        The password of an encrypted private key.
    verify
        ``False`` accepts every certificate, of any issuer and for any name, so that others can read and change the
        traffic. It is logged as a warning and shown by ``server(id)`` and ``snapshot()``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[TlsFields]) -> None: ...

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    verify: bool = True
