"""What a served connection takes, in which order it answers, and what it hands over."""

from __future__ import annotations

import pytest
from support.served import Site, post

from mcp_manager._core.serving import ServedRequest
from mcp_manager._core.serving_limits import ServingLimits


def test_a_request_has_its_fields() -> None:
    site = Site()
    site.connect().send(
        post(b"{}", b"MCP-Session-Id:  s \t", b"accept: a", b"Accept: b", b"X-Other: 1", b"x-oTHER: 2", b"Origin:")
    )
    (request,) = site.requests
    assert request.path == "/mcp"
    assert request.body == b"{}"
    assert request.header(b"host") == b"gateway"
    assert request.header(b"mcp-session-id") == b"s"
    assert request.header(b"accept") == b"a, b"
    assert request.header(b"x-other") == b"1, 2"
    assert request.header(b"origin") == b""
    assert request.header(b"mcp-name") is None
    assert request.header(b"missing") is None
    assert request.header(b"content-length") == b"2"


def test_a_path_has_no_query() -> None:
    site = Site()
    client = site.connect()
    client.send(post(target=b"/mcp?x=/other"))
    assert site.requests[0].path == "/mcp"
    assert site.requests[0].target == b"/mcp?x=/other"


def test_responses_go_out_in_order() -> None:
    site = Site()
    client = site.connect()
    client.send(post(b"[1]") + post(b"[2]", pieces=2) + post(b"[3]"))
    assert [request.body for request in site.requests] == [b"[1]"]
    site.requests[0].reply(200, b"1")
    events = site.requests[1].open_events()
    events.send(b"data: 2\n\n")
    assert len(site.requests) == 2
    events.end()
    events.end()
    events.send(b"too late")
    site.requests[2].reply(202, b"")
    assert client.statuses() == [200, 200, 202]
    assert client.received.index(b"data: 2") < client.received.index(b"202 Accepted")
    assert b"too late" not in client.received


def test_what_waits_behind_a_request_is_bounded() -> None:
    site = Site()
    client = site.connect()
    client.send(post() * 20_000)
    assert not client.transport.reading
    assert len(client.held) > len(post()) * 16_000
    site.answer = lambda request: request.reply(200, b"{}")
    site.requests[0].reply(200, b"{}")
    client.press()
    assert len(site.requests) == 20_000
    assert client.statuses().count(200) == 20_000


def test_one_connection_gets_a_bounded_share_of_an_iteration() -> None:
    site = Site(iterations=1)
    site.answer = lambda request: request.reply(200, b"{}")
    client = site.connect()
    client.send(post() * 50)
    seen = [len(site.requests)]
    while len(site.requests) < 50:
        assert not client.transport.reading
        client.turn()
        seen.append(len(site.requests))
        assert 0 < seen[-1] - seen[-2] <= 8
    client.send(post())
    assert client.statuses() == [200] * 51


def test_many_small_chunks_get_a_bounded_share_of_an_iteration() -> None:
    site = Site(iterations=1)
    client = site.connect()
    client.send(post(b"x" * 8_000, pieces=8_000))
    turns = 0
    while not site.requests:
        assert not client.transport.reading
        client.turn()
        turns += 1
    assert turns >= 10
    assert site.requests[0].body == b"x" * 8_000


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_client_that_expects_it_is_told_to_continue(framing: str) -> None:
    site = Site()
    client = site.connect()
    data = post(b"[1]", b"Expect: 100-Continue", pieces=framing == "chunked")
    client.send(data[: data.index(b"\r\n\r\n") + 4])
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(data[data.index(b"\r\n\r\n") + 4 :])
    site.requests[0].reply(200, b"{}")
    assert client.statuses() == [100, 200]


def test_http_1_0_gets_what_it_knows() -> None:
    site = Site()
    client = site.connect()
    client.send(post(b"[1]", b"Connection: keep-alive", version=b"1.0"))
    site.requests[0].reply(200, b"{}")
    assert b"Connection: keep-alive\r\n" in client.received
    client.send(post(b"[2]", b"Connection: keep-alive", version=b"1.0"))
    events = site.requests[1].open_events()
    events.send(b"data: 2\n\n")
    assert client.received.endswith(b"Connection: close\r\n\r\ndata: 2\n\n")
    assert not client.transport.closing
    events.end()
    assert client.transport.closing


@pytest.mark.parametrize(
    "data",
    [
        b"GET /mcp HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"DELETE /mcp HTTP/1.1\r\n",
        b"\x16\x03\x01\x02",
        b"PO ST",
        post(target=b"/other"),
        post(target=b"http://gateway/mcp"),
        post(b"{}", b"Connection: Upgrade", b"Upgrade: websocket"),
    ],
)
def test_all_else_is_handed_over_with_its_bytes(data: bytes) -> None:
    site = Site()
    client = site.connect()
    client.send(post(b"[1]") + data, b"more")
    assert site.webs == []
    site.requests[0].reply(200, b"{}")
    client.press()
    (web,) = site.webs
    assert web.transport is client.transport
    assert web.data == data + b"more"
    assert client.transport.reading
    assert not client.transport.closing
    assert site.pool.open == 0
    assert site.pool.handed_over == 1
    assert len(site.wheel) == 0


def get(*fields: bytes, method: bytes = b"GET", target: bytes = b"/mcp") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: gateway\r\n%b\r\n" % (
        method,
        target,
        b"".join(b"%b\r\n" % each for each in fields),
    )


def test_streams_and_ends_of_sessions_are_requests_of_the_connection() -> None:
    site = Site(takes_sessions=True)
    client = site.connect()
    whole = get(b"Accept: application/json, Text/Event-Stream", b"Last-Event-ID: 0.s.1", target=b"/mcp?x=1")
    client.send(*(whole[at : at + 1] for at in range(len(whole))), get(method=b"DELETE"), post(b"[3]"))
    (request,) = site.requests
    assert (request.method, request.path, request.target, request.body) == ("GET", "/mcp", b"/mcp?x=1", b"")
    assert request.header(b"last-event-id") == b"0.s.1"
    events = request.open_events()
    # What it said is not kept while nothing happens on the stream.
    assert (request.method, request.header(b"accept"), request.fields(), request.target) == ("GET", None, [], b"")
    events.send(b"data: 1\n\n")
    events.end()
    assert [(each.method, each.path, each.body) for each in site.requests[1:]] == [("DELETE", "/mcp", b"")]
    site.requests[1].reply(200, b"")
    assert (site.requests[2].method, site.requests[2].body) == ("POST", b"[3]")
    site.requests[2].reply(200, b"{}")
    assert client.statuses() == [200, 200, 200]
    assert site.webs == []


@pytest.mark.parametrize(
    "data",
    [
        get(b"Accept: text/html"),
        get(),
        get(b"Accept: text/event-stream", target=b"/other"),
        get(b"Accept: text/event-stream", b"Content-Length: 2") + b"{}",
        get(b"Accept: text/event-stream", b"Connection: upgrade", b"Upgrade: websocket"),
        get(b"Content-Length: 2", method=b"DELETE") + b"{}",
        get(method=b"DELETED"),
        get(method=b"HEAD"),
        b"G\r\n",
    ],
)
def test_what_asks_for_no_stream_is_handed_over(data: bytes) -> None:
    site = Site(takes_sessions=True)
    client = site.connect()
    client.send(data[:1], data[1:])
    assert site.requests == []
    (web,) = site.webs
    assert web.data == data


def test_a_client_that_goes_is_told_of_once() -> None:
    site = Site()
    gone: list[int] = []
    client = site.connect()
    client.send(post())
    request = site.requests[0]
    request.on_gone = lambda: gone.append(1)
    assert request.is_open
    client.lose()
    client.lose()
    assert gone == [1]
    assert not request.is_open
    request.reply(200, b"{}")
    events = request.open_events()
    events.send(b"data: 1\n\n")
    events.end()
    assert client.received == b""
    assert site.pool.open == 0


def test_a_client_that_goes_after_its_response_is_not_told_of() -> None:
    site = Site()
    client = site.connect()
    client.send(post())
    request = site.requests[0]
    request.on_gone = lambda: pytest.fail("the response was complete")
    request.reply(200, b"{}")
    client.lose()


def test_a_request_is_answered_once() -> None:
    site = Site()
    site.connect().send(post())
    site.requests[0].reply(200, b"{}")
    with pytest.raises(RuntimeError, match="answered"):
        site.requests[0].reply(200, b"{}")
    with pytest.raises(RuntimeError, match="answered"):
        site.requests[0].open_events()


def test_a_failure_of_the_gateway_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: ServedRequest) -> None:
        if request.body == b"[1]":
            raise LookupError("nothing")
        request.reply(200, b"{}")

    site = Site()
    site.answer = fail
    client = site.connect()
    client.send(post(b"[1]") + post(b"[2]"))
    assert client.statuses() == [500, 200]
    assert "nothing" in caplog.text
    assert b"nothing" not in client.received


def test_a_client_that_reads_too_little_of_an_event_stream_is_cut_off() -> None:
    site = Site(limits=ServingLimits(max_queued=1_000))
    gone: list[int] = []
    client = site.connect()
    client.send(post())
    site.requests[0].on_gone = lambda: gone.append(1)
    events = site.requests[0].open_events()
    client.connection.pause_writing()
    client.transport.unsent = 1_000
    events.send(b"data: 1\n\n")
    assert events.is_open
    client.transport.unsent = 1_001
    events.send(b"data: 1\n\n")
    assert client.transport.aborted
    assert not events.is_open
    assert gone == [1]


def test_a_client_that_reads_nothing_is_cut_off_and_no_further_request_of_it_is_taken() -> None:
    site = Site(limits=ServingLimits(write_s=30))
    site.answer = lambda request: (client.connection.pause_writing(), request.reply(200, b"{}"))
    client = site.connect()
    client.transport.unsent = 1_000
    client.send(post() * 3)
    assert len(site.requests) == 1
    site.pass_time(20)
    client.transport.unsent = 500
    site.pass_time(20)
    assert not client.transport.aborted
    client.connection.resume_writing()
    assert len(site.requests) == 2
    site.pass_time(31)
    assert client.transport.aborted
    assert site.pool.open == 0


def test_a_drained_pool_closes_what_is_idle_and_ends_the_others_after_their_response() -> None:
    site = Site()
    idle, busy, partial, streaming = (site.connect() for _ in range(4))
    for client in (idle, busy, streaming):
        client.send(post())
    site.requests[0].reply(200, b"{}")
    events = site.requests[2].open_events()
    partial.send(post()[:10])
    assert site.pool.busy == 2
    site.pool.drain()
    assert idle.transport.closing
    assert not busy.transport.closing
    site.requests[1].reply(200, b"{}")
    assert b"Connection: close\r\n" in busy.received
    partial.send(post()[10:])
    site.requests[3].reply(200, b"{}")
    assert b"Connection: close\r\n" in partial.received
    events.end()
    assert all(client.transport.closing for client in (busy, partial, streaming))
    late = site.connect()
    assert late.transport.aborted
    assert site.pool.open == 0


def test_more_connections_than_allowed_are_closed_at_once() -> None:
    site = Site(limits=ServingLimits(max_connections=2))
    clients = [site.connect() for _ in range(3)]
    assert [client.transport.aborted for client in clients] == [0, 0, 1]
    clients[0].lose()
    assert not site.connect().transport.aborted


def test_a_promised_body_gets_memory_as_it_arrives() -> None:
    site = Site()
    client = site.connect()
    body = bytes(range(256)) * 8_000
    data = post(body)
    client.send(data[:100])
    assert len(client.connection.get_buffer(-1)) <= 262_144
    client.send(data[100:500_000], data[500_000:])
    assert site.requests[0].body == body
    site.requests[0].reply(200, body)
    assert client.received.endswith(b"\r\n\r\n" + body)


def test_the_parts_come_only_from_a_connection() -> None:
    for kind in (ServedRequest, type(Site().connect().connection)):
        with pytest.raises(TypeError):
            kind()
    with pytest.raises(ValueError, match="positive"):
        ServingLimits(head_s=0)
