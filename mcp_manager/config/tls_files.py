"""Loading and checking of the files that a server's TLS settings name."""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from mcp_manager.config._problem import FieldProblem, at
from mcp_manager.config.tls import TlsConfig

__all__ = ["FileStamps", "check_tls_files", "load_identity", "load_trust", "stamps_of"]

FileStamps = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and modification time of each file; ``None`` for a missing one."""

# A bundle of all public certificate authorities has 0.2 MB.
_LARGEST: Final = 16 * 1024 * 1024
_MOST_FILES: Final = 4096
_CERTIFICATE: Final = (
    b"-----BEGIN CERTIFICATE-----",
    b"-----BEGIN TRUSTED CERTIFICATE-----",
    b"-----BEGIN X509 CERTIFICATE-----",
)
_KEY: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_TO_PEM: Final = "give a PEM file; openssl x509 -inform der converts a DER file"
_MOST_KNOWN: Final = 64

# Keyed by a digest, so that no password outlives its server's settings.
_checked: dict[bytes, FileStamps] = {}


def stamps_of(tls: TlsConfig) -> FileStamps:
    """Return a value that changes when one of the files changes."""
    return tuple(_stamp(path) for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None)


def check_tls_files(tls: TlsConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first file that cannot be used."""
    stamps = stamps_of(tls)
    key = hashlib.blake2b(msgspec.msgpack.encode(tls), digest_size=16).digest()
    if not stamps or _checked.get(key) == stamps:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_trust(context, tls, path)
    load_identity(context, tls, path)
    if len(_checked) >= _MOST_KNOWN:
        _checked.clear()
    _checked[key] = stamps


def load_trust(context: ssl.SSLContext, tls: TlsConfig, path: str) -> None:
    """Load the certificates of ``ca_file``, if it is given, into a context; raises :class:`FieldProblem`."""
    if tls.ca_file is None:
        return
    where = at(path, "ca_file")
    place = _expanded(tls.ca_file)
    files = [place]
    if place.is_dir():
        files = list(_certificates_in(place, where))
        if not files:
            raise FieldProblem(where, "is a directory without a PEM certificate", "give a file, or put one there")
    elif not _has_certificate(_read(place, where)):
        raise FieldProblem(where, "holds no PEM certificate", _TO_PEM)
    for file in files:
        name = where if file is place else f"{where}[{file.name}]"
        try:
            context.load_verify_locations(cafile=str(file))
        except (ssl.SSLError, OSError):
            problem = FieldProblem(name, "holds a certificate that cannot be read", _TO_PEM)
        else:
            continue
        try:
            raise problem
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del problem


def load_identity(context: ssl.SSLContext, tls: TlsConfig, path: str) -> None:
    """Load the client certificate and its key, if there is one, into a context; raises :class:`FieldProblem`."""
    if tls.cert_file is None:
        return
    certificate, key = at(path, "cert_file"), at(path, "key_file" if tls.key_file is not None else "cert_file")
    if not _has_certificate(_read(_expanded(tls.cert_file), certificate)):
        raise FieldProblem(certificate, "holds no PEM certificate", _TO_PEM)
    key_file = _expanded(tls.key_file if tls.key_file is not None else tls.cert_file)
    text = _read(key_file, key)
    if _KEY not in text:
        hint = "give a PEM file with the key" if tls.key_file is not None else "give key_file, or a file with both"
        raise FieldProblem(key, "holds no private key", hint)
    encrypted = any(mark in text for mark in _ENCRYPTED)
    if encrypted and not tls.key_password:
        raise FieldProblem(at(path, "key_password"), "missing", "give the password of the encrypted private key")
    problem = None
    try:
        # Without a password of any kind, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(_expanded(tls.cert_file), key_file, password=lambda: tls.key_password or "")
    except (ssl.SSLError, OSError, ValueError) as error:
        problem = _identity_problem(getattr(error, "reason", None) or "", path, key, encrypted=encrypted)
    if problem is not None:
        try:
            raise problem
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del problem


def _identity_problem(reason: str, path: str, key: str, *, encrypted: bool) -> FieldProblem:
    if reason == "KEY_VALUES_MISMATCH":
        return FieldProblem(key, "is not the key of the certificate in cert_file", "give a matching pair")
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return FieldProblem(at(path, "cert_file"), "is too weak for OpenSSL", "use a certificate with a stronger key")
    if encrypted:
        return FieldProblem(at(path, "key_password"), "does not decrypt the private key", "give the key's password")
    return FieldProblem(key, "cannot be read with its certificate", "give PEM files that openssl can read")


def _certificates_in(directory: Path, where: str) -> Iterator[Path]:
    try:
        files = sorted(directory.iterdir())
    except OSError as failed:
        reason = failed.strerror or type(failed).__name__
    else:
        if len(files) > _MOST_FILES:
            raise FieldProblem(where, f"is a directory of more than {_MOST_FILES} files", "give the file to use")
        for file in files:
            if file.is_file() and file.stat().st_size <= _LARGEST and _has_certificate(_read(file, where)):
                yield file
        return
    raise FieldProblem(where, f"cannot be read: {reason}")


def _has_certificate(text: bytes) -> bool:
    return any(mark in text for mark in _CERTIFICATE)


def _read(file: Path, where: str) -> bytes:
    try:
        # Opening a pipe would block until another process writes to it.
        facts = file.stat()
        if not stat.S_ISREG(facts.st_mode):
            reason = "is not a file"
        elif facts.st_size > _LARGEST:
            reason = f"has more than {_LARGEST} bytes"
        else:
            return file.read_bytes()
    except OSError as failed:
        reason = f"cannot be read: {failed.strerror or type(failed).__name__}"
    raise FieldProblem(where, reason, "check the path and its permissions")


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        facts = _expanded(path).stat()
    except (OSError, ValueError):
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
