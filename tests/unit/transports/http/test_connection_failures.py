"""Why a connection failed, in words: every reason of TLS that matters, proxies, sockets, and never a URL."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from mcp_manager.config import TlsConfig
from mcp_manager.transports.http.connections.failures import Failure, failure_of, reason_of
from mcp_manager.transports.http.connections.proxy import Proxy
from mcp_manager.transports.http.connections.route import Route

SECRET = "sentinel-s3cr3t"
KEY = ConnectionKey("h.test", 443, True, True, None, None, None)
PROXIED = Route(proxy=Proxy(URL("http://proxy.test:3128"), f"Basic {SECRET}"))
WITH_CERTIFICATE = Route(tls=TlsConfig(cert_file="agent.pem"))


def tls_error(reason: str) -> aiohttp.ClientConnectorError:
    error = ssl.SSLError(1, f"[SSL: {reason}] …")
    error.reason = reason
    return aiohttp.ClientConnectorSSLError(KEY, error)


def certificate_error(code: int, **certificate: Any) -> aiohttp.ClientConnectorError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "as OpenSSL says"
    error.certificates = [certificate] if certificate else []  # type: ignore[attr-defined]
    return aiohttp.ClientConnectorCertificateError(KEY, error)


@pytest.mark.parametrize(
    ("reason", "route", "expected", "hint"),
    [
        ("WRONG_VERSION_NUMBER", Route(), "does not speak TLS there", "http://"),
        ("RECORD_LAYER_FAILURE", Route(), "does not speak TLS there", "http://"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", Route(), "wants a client certificate", "tls.cert_file"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", Route(), "wants a client certificate", "tls.cert_file"),
        ("TLSV1_ALERT_UNKNOWN_CA", WITH_CERTIFICATE, "refused the client certificate (unknown ca)", "tls.cert_file"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", WITH_CERTIFICATE, "(certificate expired)", "tls.cert_file"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", Route(), "ciphers", "tls.cert_file"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", Route(), "no TLS version in common", "1.2"),
        ("UNSUPPORTED_PROTOCOL", Route(), "no TLS version in common", "1.2"),
        ("TLSV1_UNRECOGNIZED_NAME", Route(), "does not know this host name", "url"),
        ("UNEXPECTED_EOF_WHILE_READING", Route(), "closed during the TLS handshake", "client certificate"),
        ("SOMETHING_NEW", Route(), "TLS failed (something new)", ""),
    ],
)
def test_what_openssl_says(reason: str, route: Route, expected: str, hint: str) -> None:
    failure = failure_of(tls_error(reason), route, tls=True)
    assert expected in failure.reason
    assert hint in failure.hint
    assert "not permitted" not in failure.reason


@pytest.mark.parametrize(
    ("code", "certificate", "expected"),
    [
        (18, {"issuer": ((("commonName", "Mine"),),)}, "is self-signed (CN=Mine)"),
        (19, {"issuer": ((("organizationName", "Our\nCompany"),),)}, "by an unknown authority (O=Our?Company)"),
        (20, {"issuer": ((("commonName", "x" * 300),),)}, f"by an unknown authority (CN={'x' * 120}…)"),
        (21, {}, "is signed by an unknown authority"),
        (
            62,
            {"subjectAltName": tuple(("DNS", f"{n}.test") for n in range(9))},
            "0.test, 1.test, 2.test, 3.test, 4.test and 4 more",
        ),
        (62, {"subject": ((("commonName", "old.test"),),)}, "is for CN=old.test, not"),
        (64, {}, "is for another name, not"),
        (10, {"notAfter": "Jan  1 00:00:00 2020 GMT"}, "has expired (Jan  1 00:00:00 2020 GMT)"),
        (9, {}, "is not valid yet"),
        (23, {}, "was revoked"),
        (79, {}, "was refused (as OpenSSL says)"),
    ],
)
def test_what_is_wrong_with_a_certificate(code: int, certificate: dict[str, Any], expected: str) -> None:
    failure = failure_of(certificate_error(code, **certificate))
    assert expected in failure.reason
    assert not failure.passing


def proxy_error(status: int) -> aiohttp.ClientHttpProxyError:
    info = aiohttp.RequestInfo(URL(f"https://h.test/?key={SECRET}"), "CONNECT", {}, URL())  # type: ignore[arg-type]
    return aiohttp.ClientHttpProxyError(info, (), status=status, message=SECRET)


@pytest.mark.parametrize(
    ("error", "expected", "passing"),
    [
        (proxy_error(407), "the proxy http://proxy.test:3128 refused the credentials (HTTP 407)", False),
        (proxy_error(403), "the proxy http://proxy.test:3128 did not connect to the server (HTTP 403)", False),
        (proxy_error(502), "the proxy http://proxy.test:3128 did not connect to the server (HTTP 502)", True),
        (
            aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")),
            "the name of the proxy http://proxy.test:3128 cannot be resolved (Name or service not known)",
            True,
        ),
        (
            aiohttp.ClientProxyConnectionError(KEY, ConnectionRefusedError(111, "refused")),
            "the proxy http://proxy.test:3128 cannot be reached: Connection refused",
            True,
        ),
        (aiohttp.ServerDisconnectedError(), "the connection through the proxy http://proxy.test:3128 was closed", True),
    ],
)
def test_what_a_proxy_does(error: BaseException, expected: str, passing: bool) -> None:
    failure = failure_of(error, PROXIED, tls=True)
    assert expected in failure.reason
    assert failure.passing is passing
    assert SECRET not in repr(failure)


def test_no_text_of_aiohttp_is_passed_on() -> None:
    error = aiohttp.ClientOSError(None, f"Can not write request body for https://h.test/?key={SECRET}")
    assert reason_of(error) == "ClientOSError"
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert reason_of(error) == "Connection reset by peer"
    assert failure_of(RuntimeError(SECRET)) == Failure("RuntimeError")
