"""Whither a server may send its clients: no farther into a network than it is itself, whatever a name resolves to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from mcp_manager import AuthConfig, AuthError
from mcp_manager.auth.addresses import AddressRule, Reach, literal_address, reach_of
from mcp_manager.auth.oauth.http import OAuthHttp, is_loopback
from mcp_manager.config import ServerConfig
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.connections.route import DIRECT, request_options
from mcp_manager.transports.http.connections.routed_client import RoutedClient

PUBLIC = "https://8.8.8.8/mcp"
PRIVATE = "https://10.1.2.3/mcp"


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.255.0.1", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("10.0.0.1", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("169.254.169.254", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("fe80::1%eth0", Reach.PRIVATE),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
    ],
)
def test_an_address_reaches_as_far_as_its_network(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost.", True),
        ("LocalHost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("0x7f000001", True),
        ("0177.0.0.1", True),
        ("2130706433", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("localhost.example.com", False),
        ("notlocalhost", False),
        ("127.0.0.1.example.com", False),
        ("8.8.8.8", False),
    ],
)
def test_loopback_is_known_by_all_its_names(host: str, loopback: bool) -> None:
    assert is_loopback(URL(f"https://{host}/x")) is loopback


def test_a_name_is_no_address() -> None:
    for name in ("example.com", "", "1.example", "g"):
        assert literal_address(name) is None


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    made = HttpPool()
    yield made
    await made.aclose()


def http(pool: HttpPool, server: str, **auth: object) -> OAuthHttp:
    config = AuthConfig(type="oauth", **auth)  # type: ignore[arg-type]
    return OAuthHttp(lambda: pool.clients.shared, "a", URL(server), config)


@pytest.mark.both_loops
@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f000001", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("server", [PUBLIC, PRIVATE])
async def test_a_resolved_address_is_checked_before_a_connection_is_opened(
    pool: HttpPool, host: str, server: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = URL(f"https://{host}:{listener.getsockname()[1]}/x?secret=sentinel")
        with pytest.raises(
            AuthError, match=r"is at (::ffff:7f00:1|(::ffff:)?127\.0\.0\.1), on a network that the server"
        ) as caught:
            await http(pool, server).get(url, "the metadata")
        assert not caught.value.retryable
        assert "sentinel" not in str(caught.value)
        assert "auth.issuer" in caught.value.hint
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_connection_that_is_kept_for_others_leads_no_server_into_their_network(pool: HttpPool) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/{path}", answer)
    async with TestServer(app, host="127.0.0.1") as internal:
        url = internal.make_url("/")
        async with pool.clients.shared.get(
            url / "own", **await request_options(DIRECT, pool.tls, url, None)
        ) as response:
            await response.read()
        client = RoutedClient(pool, ServerConfig(url=PUBLIC))
        oauth = OAuthHttp(lambda: client, "a", URL(PUBLIC))
        with pytest.raises(AuthError, match="on a network that the server is not on"):
            await oauth.get(url / "foreign", "the metadata")
    assert asked == ["/own"]


@pytest.mark.parametrize(
    ("server", "auth"),
    [
        ("http://127.0.0.1:1/mcp", {}),
        (PUBLIC, {"client_id": "c", "issuer": "https://0x7f000001:{port}/realm"}),
        ("https://0x7f000001:{port}/mcp", {}),
    ],
)
async def test_what_is_near_or_named_by_the_user_is_reached(pool: HttpPool, server: str, auth: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        named = {name: value.replace("{port}", str(port)) for name, value in auth.items()}
        allowed = http(pool, server.replace("{port}", str(port)), **named)
        url = URL(f"https://0x7f000001:{port}/x")
        assert (await allowed._rule_for(url) or AddressRule(Reach.LOOPBACK)).check("127.0.0.1") is None


@pytest.mark.parametrize(
    ("server", "setting", "address", "allowed"),
    [
        (PUBLIC, False, "8.8.8.8", True),
        (PUBLIC, False, "10.0.0.1", False),
        (PUBLIC, False, "127.0.0.1", False),
        (PUBLIC, True, "10.0.0.1", True),
        (PUBLIC, True, "127.0.0.1", False),
        (PRIVATE, False, "192.168.0.1", True),
        (PRIVATE, False, "127.0.0.1", False),
        (PRIVATE, True, "127.0.0.1", False),
        ("http://localhost:1/mcp", False, "127.0.0.1", True),
    ],
)
async def test_private_networks_are_for_servers_on_one_or_by_setting(
    pool: HttpPool, server: str, setting: bool, address: str, allowed: bool
) -> None:
    rule = await http(pool, server, allow_private_addresses=setting)._rule_for(URL("https://as.example.com/x"))
    assert rule is not None
    if allowed:
        rule.check(address)
        assert rule.refused == ""
    else:
        with pytest.raises(OSError, match="is not allowed"):
            rule.check(address)
        assert rule.refused == address
