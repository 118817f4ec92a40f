"""Redirects are followed to the same origin and nowhere else; what comes compressed is read, within limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from support.calls import CALM, echo, failure_of, text_of

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer

LIMIT = 64 * 1024


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def manager(request: pytest.FixtureRequest, server: ScriptedServer) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        await manager.deploy("server", {"url": server.url, "max_response_bytes": LIMIT, **CALM})
        yield manager


def paths(server: ScriptedServer) -> list[str]:
    return [request.path for request in server.requests_of("tools/call")]


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_on_the_same_origin_is_followed_and_remembered(
    manager: McpManager, server: ScriptedServer, status: int
) -> None:
    server.script("tools/call", faults.Redirect(f"{server.url}/v2?x=%20y#fragment", status))
    for text in ("first", "second"):
        assert text_of(await manager.execute_raw("server", echo(text), timeout=5)) == text
    assert paths(server) == ["/mcp", "/mcp/v2?x=%20y", "/mcp/v2?x=%20y"]
    assert server.executed == ["first", "second"]
    first, second, third = server.requests_of("tools/call")
    assert first.body == second.body
    assert second.headers["mcp-session-id"] == third.headers["mcp-session-id"] == first.headers["mcp-session-id"]


async def test_a_chain_of_redirects_is_followed(manager: McpManager, server: ScriptedServer) -> None:
    server.script("tools/call", faults.Redirect("/a"), faults.Redirect("b"), faults.Redirect("?c"))
    assert text_of(await manager.execute_raw("server", echo("x"), timeout=5)) == "x"
    # Each is relative to the one before (RFC 9110, section 10.2.2).
    assert paths(server) == ["/mcp", "/a", "/b", "/b?c"]


async def test_redirects_in_a_circle_end(manager: McpManager, server: ScriptedServer) -> None:
    server.script_always("tools/call", faults.Redirect("/mcp"))
    error = await failure_of(manager, "server", echo("round"))
    assert isinstance(error, ProtocolError)
    assert error.delivery == "rejected"
    assert 2 <= len(paths(server)) <= 4
    server.script_always("tools/call", None)
    assert text_of(await manager.execute_raw("server", echo("out"), timeout=5)) == "out"
    assert paths(server)[-1] == "/mcp"


async def test_a_redirect_that_leads_to_a_failure_is_not_remembered(
    manager: McpManager, server: ScriptedServer
) -> None:
    server.script("tools/call", faults.Redirect("/broken"), faults.Status(500))
    await failure_of(manager, "server", echo("x"))
    assert text_of(await manager.execute_raw("server", echo("y"), timeout=5)) == "y"
    assert paths(server) == ["/mcp", "/broken", "/mcp"]


async def test_a_redirect_after_which_the_connection_breaks(manager: McpManager, server: ScriptedServer) -> None:
    server.script("tools/call", faults.Redirect("/elsewhere"), faults.Reset())
    error = await failure_of(manager, "server", echo("x"))
    assert error.delivery == "unknown"
    assert text_of(await manager.execute_raw("server", echo("y"), timeout=5)) == "y"


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1:{other}/mcp",
        "//127.0.0.1:{other}/mcp",
        "http://localhost:{own}/mcp",
        "https://127.0.0.1:{own}/mcp",
        "http://user:word@127.0.0.2:{own}/mcp",
        "ftp://127.0.0.1:{own}/",
        "http://[",
        "",
        "\\\\127.0.0.1:{other}\\mcp",
    ],
)
async def test_another_origin_never_gets_a_byte(
    manager: McpManager, server: ScriptedServer, where: str, status: int
) -> None:
    with ScriptedServer(sessions=False) as other:
        location = where.format(other=other.port, own=server.port)
        server.script_always("tools/call", faults.Redirect(location, status))
        error = await failure_of(manager, "server", echo("secret"))
        assert isinstance(error, ProtocolError)
        assert error.delivery == "rejected"
        assert other.peak_connections == 0
        assert "secret" not in "".join(server.executed)
    hosts = {request.headers["host"] for request in server.requests}
    assert hosts == {f"127.0.0.1:{server.port}"}


@pytest.mark.parametrize(
    "fault",
    [
        faults.Compressed("gzip"),
        faults.Compressed("GZIP"),
        faults.Compressed("x-gzip"),
        faults.Compressed("deflate"),
        faults.Compressed("gzip", sse=True),
        faults.Compressed("deflate", sse=True),
    ],
    ids=["gzip", "GZIP", "x-gzip", "deflate", "gzip-stream", "deflate-stream"],
)
async def test_a_compressed_reply_is_read(manager: McpManager, server: ScriptedServer, fault: Fault) -> None:
    server.script("tools/call", fault)
    text = "compressed " * 500
    assert text_of(await manager.execute_raw("server", echo(text), timeout=5)) == text
    assert text_of(await manager.execute_raw("server", echo("plain"), timeout=5)) == "plain"


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (faults.GzipBomb(), "max_response_bytes"),
        (faults.GzipBomb(coding="deflate"), "max_response_bytes"),
        (faults.GzipBomb(LIMIT + 1), "max_response_bytes"),
        (faults.Compressed("gzip", cut=True), "its gzip data is incomplete"),
        (faults.Compressed("deflate", cut=True), "its deflate data is incomplete"),
        (faults.Status(200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"{}"), "not valid gzip"),
        (faults.Status(200, {"Content-Type": "application/json", "Content-Encoding": "br"}, b"{}"), "compressed"),
        (faults.Status(200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, b"{}"), "content type"),
    ],
    ids=["gzip-bomb", "deflate-bomb", "one-too-many", "cut-gzip", "cut-deflate", "no-gzip", "brotli", "html"],
)
async def test_a_compressed_reply_that_is_refused(
    manager: McpManager, server: ScriptedServer, fault: Fault, match: str
) -> None:
    server.script("tools/call", fault)
    error = await failure_of(manager, "server", echo("x"))
    assert isinstance(error, ProtocolError)
    assert match in str(error)
    assert error.delivery == "unknown"
    assert text_of(await manager.execute_raw("server", echo("plain"), timeout=5)) == "plain"
