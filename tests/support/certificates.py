"""A self-signed certificate for test servers."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

__all__ = ["make_context"]


def make_context(directory: Path, name: str = "IP:127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """Make a self-signed certificate for ``DNS:<name>`` or ``IP:<address>``.

    Returns
    -------
    The TLS context of a server with it, and the file of the certificate for clients to trust.
    """
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=test"),
            *("-addext", f"subjectAltName={name}"),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, certificate
