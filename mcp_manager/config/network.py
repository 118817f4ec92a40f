"""How an HTTP server is reached: by which TLS, through which proxy, over which socket."""

from __future__ import annotations

from mcp_manager.config._struct import Settings

__all__ = ["TlsConfig"]


class TlsConfig(Settings, frozen=True, kw_only=True):
    """How TLS is spoken with an ``https`` server.

    A file that has changed is read again for the next connection. A leading ``~`` stands for the home directory.

    Parameters
    ----------
    ca_file
        The certificates to trust, in place of the system's: a PEM file with one or many, or a directory of such files.
        Without it, what Python trusts: the system's store, or ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
    cert_file, key_file
        The client certificate with its chain, and its private key, both PEM; one file may hold both.
    key_password
        What the private key is encrypted with.
    verify
        ``False`` accepts every certificate, whoever made it and for whatever name: anybody on the way can read and
        change what is sent. It is logged as a warning, and shown by ``server(id)`` and ``snapshot()``.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    verify: bool = True
