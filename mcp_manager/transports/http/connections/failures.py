"""Explains why a connection failed or broke: a short reason and a hint."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.client_exceptions import UnixClientConnectorError

from mcp_manager.transports.http.connections.route import DIRECT, Route, UnusableProxyError
from mcp_manager.transports.http.connections.tls import UnusableTlsError

__all__ = ["Failure", "failure_of", "reason_of", "underlying"]

_CLIENT_CERTIFICATE: Final = "set tls.cert_file and tls.key_file"
_PROXY_SETTING: Final = "check proxy"
_MAY_WANT_CERTIFICATE: Final = (
    "if it does not speak TLS there, use http:// in url; "
    "if it wants a client certificate, set tls.cert_file and tls.key_file"
)
# OpenSSL's verification errors (x509_vfy.h).
_NOT_YET_VALID: Final = frozenset({9, 13})
_EXPIRED: Final = frozenset({10, 14})
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21, 27})
_REVOKED: Final = 23
_OTHER_NAME: Final = frozenset({62, 63, 64})
# The alerts of a peer that does not accept the client's certificate (RFC 8446, section 6.2).
_REFUSES_CERTIFICATE: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_NO_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
_VERSIONS: Final = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})
_MOST_NAMES: Final = 5
_LONGEST: Final = 120


class Failure(msgspec.Struct, frozen=True):
    """Why a connection failed.

    Parameters
    ----------
    reason
        A few words, without the requested URL and without credentials.
    hint
        What to do about it, empty if nothing can be named.
    passing
        Whether it may go away by itself.
    refused
        Whether the peer rejected the client, so that nothing was executed even if the request arrived.
    """

    reason: str
    hint: str = ""
    passing: bool = True
    refused: bool = False


def reason_of(error: BaseException) -> str:
    """Return in a few words why a connection failed; see :func:`failure_of`."""
    return failure_of(error).reason


def failure_of(error: BaseException, route: Route = DIRECT, *, tls: bool = False) -> Failure:
    """Explain why a connection failed, without the URL that aiohttp's own texts quote.

    Parameters
    ----------
    error
        What was raised.
    route
        The route of the connection.
    tls
        Whether the server is expected to speak TLS.
    """
    if isinstance(error, UnusableTlsError):
        return Failure(str(error), error.hint, passing=False)
    if isinstance(error, UnusableProxyError):
        return Failure(str(error), _PROXY_SETTING, passing=False)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error.status, route)
    if isinstance(error, TimeoutError):
        if route.proxy is None:
            hint = "check that its host and port can be reached from here; raise connect_timeout_s if they are far away"
            return Failure("no connection within connect_timeout_s", hint)
        return Failure(f"no answer{route} within connect_timeout_s", _PROXY_SETTING)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Failure("the server closed it" if route.proxy is None else f"the connection{route} was closed")
    if isinstance(error, aiohttp.ClientResponseError):
        # It comes from the proxy: the server's own responses are read elsewhere.
        return Failure(f"the answer{route} is not HTTP", _PROXY_SETTING if route.proxy is not None else "")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate_refused(error.certificate_error)
    os_error = underlying(error)
    if isinstance(os_error, ssl.SSLCertVerificationError):
        return _certificate_refused(os_error)
    if isinstance(os_error, ssl.SSLError):
        return _tls_failed(os_error, route)
    if isinstance(error, UnixClientConnectorError):
        return _no_socket(error)
    if isinstance(os_error, OSError):
        return _system_failed(error, os_error, route, tls=tls)
    return Failure(type(error).__name__)


def underlying(error: BaseException) -> BaseException:
    """Return the operating system's error behind one of aiohttp's, whose text may quote the URL."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    if isinstance(error, aiohttp.ClientOSError) and isinstance(error.__cause__, OSError):
        return error.__cause__
    return error


def _system_failed(error: BaseException, os_error: OSError, route: Route, *, tls: bool) -> Failure:
    if isinstance(os_error, socket.gaierror):
        what = f"the name of the proxy {route.proxy.url.origin()}" if route.proxy is not None else "its name"
        hint = _PROXY_SETTING if route.proxy is not None else "check the name in url"
        return Failure(f"{what} cannot be resolved ({os_error.strerror})", hint)
    if isinstance(os_error, ConnectionResetError) and tls and isinstance(error, aiohttp.ClientConnectorError):
        hint = "check that it speaks TLS there" if route.tls.cert_file is not None else _MAY_WANT_CERTIFICATE
        return Failure(f"the connection{route} was closed during the TLS handshake", hint)
    # asyncio's texts repeat the address; strerror() has only the reason.
    reason = os.strerror(os_error.errno) if os_error.errno else _own_text(os_error)
    if route.proxy is not None and isinstance(error, aiohttp.ClientConnectorError):
        return Failure(f"the proxy {route.proxy.url.origin()} cannot be reached: {reason}", _PROXY_SETTING)
    is_refused = isinstance(os_error, ConnectionRefusedError)
    return Failure(reason, "check that the server runs, and its url" if is_refused else "")


def _own_text(error: OSError) -> str:
    # aiohttp's texts quote the URL, which may contain secrets.
    return type(error).__name__ if isinstance(error, aiohttp.ClientError) else str(error) or type(error).__name__


def _refused_by_proxy(status: int, route: Route) -> Failure:
    proxy = route.proxy
    where = f"the proxy {proxy.url.origin()}" if proxy is not None else "the proxy"
    if status == 407:
        if proxy is not None and proxy.credentials is not None:
            hint = "check user and password in the URL of the proxy"
            return Failure(f"{where} refused the credentials (HTTP 407)", hint, passing=False)
        hint = "put user and password into the URL of the proxy"
        return Failure(f"{where} requires credentials (HTTP 407)", hint, passing=False)
    return Failure(f"{where} did not connect to the server (HTTP {status})", passing=status >= 500 or status == 429)


def _no_socket(error: UnixClientConnectorError) -> Failure:
    reason = os.strerror(error.os_error.errno) if error.os_error.errno else type(error.os_error).__name__
    path = error.path
    if isinstance(error.os_error, ConnectionRefusedError) and os.path.isfile(path):
        return Failure(
            f"unix_socket {path} is a file, not a socket", "give the path of the server's socket", passing=False
        )
    hint = (
        "check that the server is running"
        if isinstance(error.os_error, FileNotFoundError | ConnectionRefusedError)
        else ""
    )
    return Failure(f"unix_socket {path}: {reason}", hint)


def _certificate_refused(error: BaseException) -> Failure:
    code = getattr(error, "verify_code", 0)
    leaf, top = _ends(getattr(error, "certificates", ()))
    if code in _UNKNOWN_ISSUER:
        issuer = _common_name(top.get("issuer"))
        named = f" ({issuer})" if issuer else ""
        how = "self-signed" if code == 18 else f"signed by an unknown authority{named}"
        hint = "set tls.ca_file to the certificates to trust"
        return Failure(f"its TLS certificate is {how}{named if code == 18 else ''}", hint, passing=False)
    if code in _OTHER_NAME:
        names = [value for _, value in leaf.get("subjectAltName", ())] or [_common_name(leaf.get("subject"))]
        shown = ", ".join(_plain(name) for name in names[:_MOST_NAMES] if name)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        hint = "use a name from the certificate in url"
        return Failure(
            f"its TLS certificate is for {shown or 'another name'}{more}, not for its host", hint, passing=False
        )
    if code in _EXPIRED:
        ended = _plain(leaf.get("notAfter", ""))
        return Failure(f"its TLS certificate has expired{f' ({ended})' if ended else ''}", passing=False)
    if code in _NOT_YET_VALID:
        begins = _plain(leaf.get("notBefore", ""))
        hint = "check the clock of this machine"
        return Failure(f"its TLS certificate is not valid yet{f' ({begins})' if begins else ''}", hint, passing=False)
    if code == _REVOKED:
        return Failure("its TLS certificate was revoked", passing=False)
    said = _plain(getattr(error, "verify_message", "")) or type(error).__name__
    return Failure(f"its TLS certificate was refused ({said})", passing=False)


def _tls_failed(error: ssl.SSLError, route: Route) -> Failure:
    reason = error.reason or ""
    if reason in _NO_TLS:
        return Failure("the server does not speak TLS there", "use http:// in url, or the port of https", passing=False)
    if reason in _REFUSES_CERTIFICATE:
        if route.tls.cert_file is None:
            return Failure("the server wants a client certificate", _CLIENT_CERTIFICATE, passing=False, refused=True)
        said = reason.partition("ALERT_")[2].lower().replace("_", " ")
        hint = "check tls.cert_file and tls.key_file"
        return Failure(f"the server refused the client certificate ({said})", hint, passing=False, refused=True)
    if reason in ("SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY"):
        hint = _CLIENT_CERTIFICATE if route.tls.cert_file is None else ""
        text = "the server refused the TLS handshake: it wants a client certificate, or ciphers not supported here"
        return Failure(text, hint, passing=False)
    if reason in _VERSIONS:
        return Failure(
            "the server and this system have no TLS version in common",
            "this client supports TLS 1.2 and later",
            passing=False,
        )
    if reason in ("TLSV1_UNRECOGNIZED_NAME", "TLSV1_ALERT_UNRECOGNIZED_NAME"):
        return Failure("the server does not know this host name (TLS)", "use the server's name in url", passing=False)
    if reason.startswith("UNEXPECTED_EOF"):
        return Failure("the connection was closed during the TLS handshake", _MAY_WANT_CERTIFICATE)
    return Failure(f"TLS failed ({reason.lower().replace('_', ' ') or type(error).__name__})")


def _ends(certificates: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the server's own certificate and the last of its chain, whose issuer is the unknown one."""
    chain = list(certificates)
    return (chain[0], chain[-1]) if chain else ({}, {})


def _common_name(name: Any) -> str:
    """Return the most telling part of a distinguished name: common name, organization or unit."""
    parts = {key: value for part in name or () for key, value in part}
    for key, short in (("commonName", "CN"), ("organizationName", "O"), ("organizationalUnitName", "OU")):
        if parts.get(key):
            return f"{short}={_plain(parts[key])}"
    return ""


def _plain(text: str) -> str:
    """Return a peer's text on one line and of limited length."""
    shown = "".join(each if each.isprintable() else "?" for each in str(text))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
