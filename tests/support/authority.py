"""A certificate authority for tests, and a server that refuses clients with TLS alerts."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import socket
import ssl
import threading
from pathlib import Path
from typing import Final, NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Pair", "StrictTlsServer"]

_DAY: Final = datetime.timedelta(days=1)
_numbers: Final = itertools.count()


class Pair(NamedTuple):
    """The files of a certificate and its key."""

    certificate: Path
    key: Path

    def load(self, *, trusting: Authority | None = None, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return the context of a server; with ``trusting``, it requires client certificates of that authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if newest is not None:
            context.maximum_version = newest
        if trusting is not None:
            context.load_verify_locations(trusting.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """Issue certificates into a directory.

    Parameters
    ----------
    directory
        The directory for its files.
    name
        The authority's common name.
    """

    def __init__(self, directory: Path, name: str = "Test Authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key, 1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = self._write("ca.pem", self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, *names: str, days: int = 1, password: str | None = None) -> Pair:
        """Issue a certificate for some names and addresses.

        It is valid for ``days``. With negative ``days`` it expired that many days ago; with -100 or less it is not
        valid yet.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([_general_name(each) for each in names])
        certificate = (
            self._builder(subject, key, days)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        return Pair(
            self._write("certificate.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write("key.pem", pem),
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        begins, ends = now - _DAY, now + days * _DAY
        if days < 0:
            begins = ends - _DAY
        if days <= -100:
            begins, ends = now + _DAY, now + 2 * _DAY
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )

    def _write(self, name: str, text: bytes) -> Path:
        path = self._directory / f"{next(_numbers)}-{name}"
        path.write_bytes(text)
        return path


class StrictTlsServer:
    """Accept connections, do OpenSSL's TLS handshake with its alerts, and end each connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="strict-tls-server", daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the listener would not wake accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with accepted:
                accepted.settimeout(5.0)
                self._refuse(accepted)

    def _refuse(self, accepted: socket.socket) -> None:
        plain = accepted.dup()
        with plain:
            try:
                self._context.wrap_socket(accepted, server_side=True).close()
            except OSError:
                pass
            try:
                # Closing a socket with unread data resets the connection, and the alert would be lost.
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(65536):
                    pass
            except OSError:
                pass


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
