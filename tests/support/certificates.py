"""A certificate for 127.0.0.1 that nobody but the test trusts."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

__all__ = ["make_contexts"]


def make_contexts(directory: Path, name: str = "IP:127.0.0.1") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a self-signed certificate, for ``DNS:<name>`` or ``IP:<address>``, and return the context of a server that has it, and that of a client that trusts it."""
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
    return server, ssl.create_default_context(cafile=str(certificate))
