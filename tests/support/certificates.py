"""A certificate for 127.0.0.1 that nobody but the test trusts."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

__all__ = ["make_context"]


def make_context(directory: Path, name: str = "IP:127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """Make a self-signed certificate, for ``DNS:<name>`` or ``IP:<address>``, and return the context of a server that has it, and its file, which a client has to trust."""
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
