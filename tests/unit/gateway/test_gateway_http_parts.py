"""What the HTTP side of the gateway is made of: hosts and origins, accepted kinds, keep-alives, paths, counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mcp_manager.config.listen_address import ListenAddress
from mcp_manager.gateway.http.accepting import accepted, is_json
from mcp_manager.gateway.http.endpoint_paths import EndpointPaths
from mcp_manager.gateway.http.hosts import Hosts
from mcp_manager.gateway.http.keep_alives import COMMENT, KeepAlives
from mcp_manager.gateway.http.traffic import Traffic, with_page
from mcp_manager.gateway.http.web_requests import WebEventStream, WebRequest


@pytest.mark.parametrize(
    ("field", "is_accepted"),
    [
        (b"localhost", True),
        (b"LOCALHOST:80", True),
        (b"127.0.0.1:8080", True),
        (b"127.9.9.9", True),
        (b"[::1]:8080", True),
        (b"gateway.example.com", True),
        (b"Gateway.Example.Com:443", True),
        (b"other.example.com:8443", True),
        (b"other.example.com", False),
        (b"10.1.1.1:80", True),
        (b"10.1.1.2", False),
        (b"localhost.evil.com", False),
        (b"evil.com#localhost", False),
        (b"localhost:80:80", False),
        (b"localhost:x", False),
        (b"[::1", False),
        (b"[::1]x", False),
        (b"::1", False),
        (b"", False),
        (None, False),
        (b"localhost, evil.com", False),
        (b"x" * 400, False),
        ("locälhost".encode(), False),
        (b"0.0.0.0", False),
    ],
)  # fmt: skip
def test_hosts(field: bytes | None, is_accepted: bool) -> None:
    hosts = Hosts(ListenAddress("10.1.1.1", 80), ["gateway.example.com", "other.example.com:8443"])
    assert hosts.accepts_host(field) is is_accepted
    # Also from what is remembered.
    assert hosts.accepts_host(field) is is_accepted


@pytest.mark.parametrize(
    ("field", "is_accepted"),
    [
        (None, True),
        (b"http://localhost", True),
        (b"https://127.0.0.1:3000", True),
        (b"http://[::1]:1", True),
        (b"https://app.example.com", True),
        (b"HTTPS://App.example.com", True),
        (b"http://app.example.com", False),
        (b"https://app.example.com:444", False),
        (b"null", False),
        (b"", False),
        (b"file://", False),
        (b"http://localhost@evil.com", False),
        (b"http://localhost.evil.com", False),
        (b"http://evil.com/http://localhost", False),
        (b"http://[::1", False),
        (b"chrome-extension://localhost", False),
    ],
)  # fmt: skip
def test_origins(field: bytes | None, is_accepted: bool) -> None:
    hosts = Hosts(ListenAddress("127.0.0.1", 80), (), ["https://app.example.com"])
    assert hosts.accepts_origin(field) is is_accepted
    assert hosts.accepts_origin(field) is is_accepted


def test_what_is_remembered_is_bounded() -> None:
    hosts = Hosts(ListenAddress("127.0.0.1", 80))
    for port in range(1_000):
        assert hosts.accepts_host(b"localhost:%d" % port)
        assert hosts.accepts_origin(b"http://localhost:%d" % port)
    assert len(hosts._known_hosts) <= 256
    assert len(hosts._known_origins) <= 256


@pytest.mark.parametrize(
    ("field", "json", "events"),
    [
        (None, True, False),
        (b"", False, False),
        (b"application/json, text/event-stream", True, True),
        (b"Application/JSON", True, False),
        (b"text/event-stream;q=0.5", False, True),
        (b"*/*", True, True),
        (b"application/*", True, False),
        (b"text/*", False, True),
        (b"text/html", False, False),
        (b"*/*;q=0", False, False),
        (b"application/json;q=0.000, text/event-stream; q=1", False, True),
        (b"application/json;version=1;q=0.1", True, False),
        (b",;,=;q=", False, False),
        (b"x" * 5_000 + b", */*", True, True),
    ],
)
def test_accepted_kinds(field: bytes | None, json: bool, events: bool) -> None:
    assert accepted(field) == (json, events)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"application/json", True),
        (b"application/json; charset=utf-8", True),
        (b"APPLICATION/JSON", True),
        (b"application/jsonx", False),
        (b"text/plain; application/json", False),
        (None, False),
    ],
)
def test_a_body_is_json(field: bytes | None, expected: bool) -> None:
    assert is_json(field) is expected


class Stream:
    def __init__(self) -> None:
        self.is_open = True
        self.sent: list[bytes] = []
        self.on_gone: Callable[[], None] | None = None

    def send(self, events: bytes) -> None:
        self.sent.append(events)

    def end(self) -> None:
        self.is_open = False


class Request:
    waits_since = 0

    def __init__(self) -> None:
        self.kept = 0

    def keep_alive(self) -> None:
        self.kept += 1


async def test_keep_alives_reach_streams_and_requests_that_wait() -> None:
    keep_alives = KeepAlives(60.0)
    keep_alives.start()
    loop = asyncio.get_running_loop()

    def tick() -> None:
        assert keep_alives._timer is not None
        keep_alives._timer.cancel()
        keep_alives._tick(loop)

    stream, ended, first, second, answered = Stream(), Stream(), Request(), Request(), Request()
    ended.end()
    keep_alives.add(stream)
    keep_alives.add(ended)
    keep_alives.wait_for(first)
    keep_alives.wait_for(answered)
    tick()
    keep_alives.wait_for(second)
    keep_alives.forget(answered)
    keep_alives.forget(answered)
    assert (stream.sent, ended.sent, first.kept) == ([COMMENT], [], 0)
    assert keep_alives.streams == 1
    tick()
    assert (first.kept, second.kept, answered.kept) == (1, 0, 0)
    tick()
    # Once it has a stream, comments are sent there.
    assert (first.kept, second.kept) == (1, 1)
    keep_alives.stop()
    keep_alives.stop()
    assert keep_alives.streams == 0


async def test_many_streams_get_their_comments_in_turns() -> None:
    keep_alives = KeepAlives(60.0)
    keep_alives.start()
    loop = asyncio.get_running_loop()
    streams = [Stream() for _ in range(100)]
    for stream in streams:
        keep_alives.add(stream)

    def served() -> int:
        return sum(len(stream.sent) for stream in streams)

    keep_alives._tick(loop)
    counts = [served()]
    # A round that has not ended is not begun again.
    keep_alives._tick(loop)
    while counts[-1] < len(streams):
        await asyncio.sleep(0)
        counts.append(served())
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) == counts[0] < 50
    assert all(stream.sent == [COMMENT] for stream in streams)
    keep_alives._tick(loop)
    keep_alives.stop()
    await asyncio.sleep(0)
    assert served() == 100 + counts[0]


@pytest.mark.parametrize("gone_when", ["before the stream begins", "while it does not read"])
async def test_a_client_of_the_other_server_that_goes_ends_its_stream(gone_when: str) -> None:
    gone, begun = asyncio.Event(), asyncio.Event()
    ended = asyncio.get_running_loop().create_future()
    streams: list[WebEventStream] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        incoming = WebRequest(request, b"")
        serving = asyncio.ensure_future(incoming.serve())
        await asyncio.sleep(0)
        stream = incoming.open_events()
        stream.on_gone = gone.set
        streams.append(stream)
        begun.set()
        if gone_when.startswith("before"):
            serving.cancel()
        try:
            return await serving
        finally:
            ended.set_result(None)

    runner = web.ServerRunner(web.Server(handle, handler_cancellation=True))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection(*runner.addresses[0][:2], limit=1)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun.wait()
        while streams[0].is_open and not gone.is_set():
            # One is written, and the others wait until that is read.
            streams[0].send(b"x" * 3_000_000)
            await asyncio.sleep(0)
        await gone.wait()
        await asyncio.wait_for(ended, 5)
        assert not streams[0].is_open
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await runner.cleanup()


def test_paths_are_found_once_and_forgotten_with_their_server() -> None:
    asked: list[str] = []
    found: dict[str, Any] = {"/servers/a/mcp": SimpleNamespace(name="server/a"), "/mcp": SimpleNamespace(name="fleet")}

    def find(path: str, grant: Any) -> Any:
        asked.append(path)
        return found.get(path) if grant is None else None

    paths = EndpointPaths(find)
    for _ in range(3):
        assert paths.find("/mcp") is found["/mcp"]
        assert paths.find("/servers/a/mcp") is not None
        assert paths.find("/nothing\xff") is None
    assert asked.count("/mcp") == asked.count("/servers/a/mcp") == 1
    assert paths.find("/mcp", "a grant that allows nothing") is None
    del found["/servers/a/mcp"]
    paths.changed("a", "notifications/tools/list_changed")
    assert paths.find("/servers/a/mcp") is None
    assert paths.find("/" + "x" * 10_000) is None


def test_paths_of_endpoints_have_a_form_that_tells_nothing_of_what_there_is() -> None:
    paths = EndpointPaths(lambda path, grant: None)
    of_endpoints = [b"/mcp", b"/mcp/view", b"/mcp/%20", b"/servers/a/mcp"]
    others = [
        b"/",
        b"/metrics",
        b"/mcp/",
        b"/mcp/a/b",
        b"/servers/a",
        b"/servers//mcp",
        b"/servers/a/mcp/b",
        b"/nothing\xff",
    ]
    assert [paths.is_endpoint(path) for path in of_endpoints] == [True] * len(of_endpoints)
    assert [paths.is_endpoint(path) for path in others] == [False] * len(others)


@pytest.mark.parametrize(
    ("accept", "end", "parse"),
    [
        ("", b"", text_string_to_metric_families),
        ("application/openmetrics-text; version=1.0.0", b"# EOF\n", openmetrics.text_string_to_metric_families),
    ],
)
def test_counts_are_a_page(accept: str, end: bytes, parse: Any) -> None:
    traffic = Traffic({("mcp_gateway_open_streams", "Streams"): lambda: 3})
    traffic.count("server/a", "handshake", 200)
    traffic.count("server/a", "handshake", 200)
    traffic.count("fleet", "stateless", 404)
    page = with_page(traffic, accept, b"# HELP x y\n# TYPE x gauge\nx 1.0\n" + end)
    families = {each.name: each for each in parse(page.decode())}
    assert {(each.labels["endpoint"], each.value) for each in families["mcp_gateway_requests"].samples} >= {
        ("server/a", 2.0),
        ("fleet", 1.0),
    }
    assert families["mcp_gateway_open_streams"].samples[0].value == 3
    assert families["x"].samples[0].value == 1


def test_series_of_endpoints_are_bounded() -> None:
    traffic = Traffic({})
    for number in range(12_000):
        traffic.count(f"server/{number}", "handshake", 200)
    (family, *_) = traffic.collect()
    assert len(family.samples) == 10_001
    assert sum(each.value for each in family.samples) == 12_000
