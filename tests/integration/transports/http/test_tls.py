"""TLS of a server's own: whom it trusts, who it says it is, what is shared and what is not, and why it fails."""

from __future__ import annotations

import contextlib
import logging
import ssl
import traceback
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority, Pair, StrictTlsServer
from support.calls import CALM, echo, failure_of, text_of

from mcp_manager import CallError, ConfigError, ConnectError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Request, ScriptedServer

SECRET = "sentinel-s3cr3t"

pytestmark = pytest.mark.both_loops


@pytest.fixture(params=[True, False], ids=["lanes", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> Any:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Recording(ScriptedServer):
    """A server that notes whose certificate each connection came with, and which requests came on it."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(tls=tls)
        self.seen: set[tuple[str, str]] = set()

    def record(self, request: Request) -> Request:
        [transport] = [each._transport for each in self.connections if each.number == request.connection]
        assert transport is not None
        certificate = transport.get_extra_info("peercert") or {}
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        self.seen.add((names[0] if names else "", request.headers.get("x-who", "")))
        return super().record(request)


def identity(pair: Pair) -> dict[str, str]:
    return {"cert_file": str(pair.certificate), "key_file": str(pair.key)}


@pytest.mark.parametrize("where", ["file", "bundle", "directory"])
async def test_a_private_authority_is_trusted(
    manager: McpManager, authority: Authority, where: str, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "Another Authority").ca_file.read_bytes()
    place = tmp_path / "trusted"
    if where == "file":
        place = authority.ca_file
    elif where == "bundle":
        place.write_bytes("# ünser Bündel\n".encode() + other + authority.ca_file.read_bytes())
    else:
        place.mkdir()
        (place / "another.pem").write_bytes(other)
        (place / "ours.crt").write_bytes(authority.ca_file.read_bytes())
        (place / "README").write_text("no certificate")
    with ScriptedServer(tls=authority.issue("127.0.0.1").load()) as server:
        await manager.deploy("a", {"url": server.url, "tls": {"ca_file": str(place)}, **CALM})
        for text in ("one", "two", "three"):
            assert text_of(await manager.execute_raw("a", echo(text))) == text
        assert manager.server("a").tls_verify is True
        await manager.undeploy("a")
        assert {each.verb for each in server.requests} == {"POST", "GET", "DELETE"}


async def test_the_variable_of_openssl_is_heeded(
    manager: McpManager, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    with ScriptedServer(tls=authority.issue("127.0.0.1").load()) as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


@pytest.mark.parametrize("password", [None, SECRET])
async def test_a_client_certificate_is_shown(
    manager: McpManager, authority: Authority, password: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mine = authority.issue("agent", password=password)
    tls = {"ca_file": str(authority.ca_file), **identity(mine), "key_password": password}
    with Recording(authority.issue("127.0.0.1").load(trusting=authority)) as server:
        await manager.deploy("a", {"url": server.url, "tls": tls, "headers": {"X-Who": "a"}, **CALM})
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert server.seen == {("agent", "a")}
        shown = [repr(manager.server("a")), repr(manager.snapshot()), manager.metrics_text()]
        await manager.undeploy("a")
    assert SECRET not in "\n".join(shown) + caplog.text


async def test_a_connection_is_never_shared_between_certificates(manager: McpManager, authority: Authority) -> None:
    with Recording(authority.issue("127.0.0.1").load(trusting=authority)) as server:
        for name in ("a", "b"):
            tls = {"ca_file": str(authority.ca_file), **identity(authority.issue(name))}
            await manager.deploy(name, {"url": server.url, "tls": tls, "headers": {"X-Who": name}, **CALM})
        for _ in range(3):
            for name in ("a", "b"):
                assert text_of(await manager.execute_raw(name, echo(name))) == name
        assert server.seen == {("a", "a"), ("b", "b")}
        for name in ("a", "b"):
            await manager.undeploy(name)


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    manager: McpManager, authority: Authority, tmp_path: Path
) -> None:
    used = Pair(tmp_path / "mine.pem", tmp_path / "mine.key")

    def install(certificate: Path, key: Path) -> None:
        used.certificate.write_bytes(certificate.read_bytes())
        used.key.write_bytes(key.read_bytes())

    first, second, third = (authority.issue(name) for name in ("first", "second", "third"))
    install(*first)
    with Recording(authority.issue("127.0.0.1").load(trusting=authority)) as server:
        tls = {"ca_file": str(authority.ca_file), **identity(used)}
        await manager.deploy("a", {"url": server.url, "tls": tls, **CALM})
        for pair, expected in [
            (second, "second"),
            # In the middle of a replacement: those of before go on.
            (Pair(third.certificate, second.key), "second"),
            (third, "third"),
        ]:
            install(*pair)
            server.refuse_connections()
            server.listen()
            with contextlib.suppress(CallError):
                # It may be sent on a connection whose end is not known yet.
                await manager.ping("a", timeout=5)
            server.seen.clear()
            assert text_of(await manager.execute_raw("a", echo(expected), timeout=5)) == expected
            assert server.seen == {(expected, "")}


async def test_without_verification_there_is_a_warning(
    manager: McpManager, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedServer(tls=authority.issue("another.test").load()) as server:
        await manager.deploy("a", {"url": server.url, "tls": {"verify": False}, **CALM})
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert "tls.verify is false" in caplog.text
        assert manager.server("a").tls_verify is False
        assert manager.snapshot().servers[0].tls_verify is False
        # Another one, of the same origin, is not spoken to over what was opened for that.
        await manager.deploy("b", {"url": server.url, **CALM})
        assert isinstance(await failure_of(manager, "b", echo("x")), ConnectError)


@pytest.mark.parametrize(
    ("names", "days", "trusted", "reason", "hint"),
    [
        (["127.0.0.1"], 1, False, "signed by an unknown authority (CN=Test Authority)", "set tls.ca_file"),
        (["one.test", "192.0.2.7"], 1, True, "is for one.test, 192.0.2.7, not for its host", "use a name"),
        (["127.0.0.1"], -2, True, "has expired", ""),
        (["127.0.0.1"], -100, True, "is not valid yet", "clock"),
    ],
)
async def test_why_a_certificate_is_refused(
    manager: McpManager, authority: Authority, names: list[str], days: int, trusted: bool, reason: str, hint: str
) -> None:
    tls = {"ca_file": str(authority.ca_file)} if trusted else {}
    with ScriptedServer(tls=authority.issue(*names, days=days).load()) as server:
        await manager.deploy("a", {"url": server.url, "tls": tls, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert reason in error.message
        assert hint in error.hint
        assert (error.delivery, error.retryable) == ("not_sent", False)
        assert reason in (manager.server("a").last_error or "")
        assert server.requests == []


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_wanted(
    manager: McpManager, authority: Authority, newest: ssl.TLSVersion
) -> None:
    context = authority.issue("127.0.0.1").load(trusting=authority, newest=newest)
    with StrictTlsServer(context) as server:
        tls = {"ca_file": str(authority.ca_file)}
        await manager.deploy("a", {"url": f"https://127.0.0.1:{server.port}/mcp", "tls": tls, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        # On uvloop the alert may be gone when aiohttp sends its request.
        assert "wants a client certificate" in str(error)
        assert "set tls.cert_file and tls.key_file" in error.hint
        assert error.delivery == "not_sent"
        await manager.undeploy("a")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_refused(
    manager: McpManager, authority: Authority, newest: ssl.TLSVersion, tmp_path: Path
) -> None:
    context = authority.issue("127.0.0.1").load(trusting=authority, newest=newest)
    stranger = Authority(tmp_path, "Somebody Else").issue("agent")
    with StrictTlsServer(context) as server:
        tls = {"ca_file": str(authority.ca_file), **identity(stranger)}
        await manager.deploy("a", {"url": f"https://127.0.0.1:{server.port}/mcp", "tls": tls, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        # See above.
        told = "refused the client certificate (unknown ca)" in error.message
        assert told or "may refuse the certificate of tls.cert_file" in error.hint
        await manager.undeploy("a")


async def test_a_server_that_says_nothing_of_what_it_wants(manager: McpManager, authority: Authority) -> None:
    with ScriptedServer(tls=authority.issue("127.0.0.1").load(trusting=authority)) as server:
        await manager.deploy("a", {"url": server.url, "tls": {"ca_file": str(authority.ca_file)}, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert "client certificate" in error.hint
        assert "Operation not permitted" not in str(error)
        await manager.undeploy("a")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_versions_without_a_common_one(manager: McpManager, authority: Authority) -> None:
    context = authority.issue("127.0.0.1").load()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with StrictTlsServer(context) as server:
        tls = {"ca_file": str(authority.ca_file)}
        await manager.deploy("a", {"url": f"https://127.0.0.1:{server.port}/mcp", "tls": tls, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert "TLS version" in error.message


async def test_tls_to_a_port_without_it(manager: McpManager) -> None:
    with ScriptedServer() as server:
        server.script_connections(faults.Bytes(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), times=50)
        await manager.deploy("a", {"url": server.url.replace("http:", "https:"), **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert "the server does not speak TLS there" in error.message
        assert "http://" in error.hint
        assert (error.delivery, error.retryable) == ("not_sent", False)


async def test_no_tls_to_a_port_with_it(manager: McpManager) -> None:
    with ScriptedServer() as server:
        server.script_always("*", faults.Bytes(b"\x15\x03\x01\x00\x02\x02\x0a"))
        await manager.deploy("a", {"url": server.url, **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert "the server speaks TLS there" in error.message
        assert "https://" in error.hint
        assert error.retryable is False


async def test_no_tls_to_a_port_that_says_so_in_http(manager: McpManager) -> None:
    text = b"Client sent an HTTP request to an HTTPS server."
    with ScriptedServer() as server:
        server.script_always("*", faults.Status(400, body=text))
        await manager.deploy("a", {"url": server.url, **CALM})
        assert "https://" in (await failure_of(manager, "a", echo("x"))).hint


async def test_no_tls_to_a_port_that_closes(manager: McpManager, authority: Authority) -> None:
    with ScriptedServer(tls=authority.issue("127.0.0.1").load()) as server:
        await manager.deploy("a", {"url": server.url.replace("https:", "http:"), **CALM})
        error = await failure_of(manager, "a", echo("x"))
        assert "broke before the reply" in error.message
        assert "https://" in error.hint
        await manager.undeploy("a")


async def test_a_file_that_is_gone_when_it_is_needed(manager: McpManager, authority: Authority, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    gone.write_bytes(authority.ca_file.read_bytes())
    with ScriptedServer(tls=authority.issue("127.0.0.1").load()) as server:
        tls = {"ca_file": str(gone)}
        await manager.deploy("a", {"url": server.url, "tls": tls, "connect": "lazy", **CALM})
        gone.unlink()
        error = await failure_of(manager, "a", echo("x"))
        assert isinstance(error, ConnectError)
        assert "tls.ca_file: cannot be read: No such file" in error.message
        gone.write_bytes(authority.ca_file.read_bytes())
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=5)) == "x"


async def test_a_wrong_password_is_told_without_it(manager: McpManager, authority: Authority) -> None:
    mine = authority.issue("agent", password="right")
    with pytest.raises(ConfigError, match=r"tls\.key_password: does not decrypt") as caught:
        await manager.deploy("a", {"url": "https://127.0.0.1:1/", "tls": {**identity(mine), "key_password": SECRET}})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
