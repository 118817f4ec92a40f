"""What reads connections: replies on a wire, and requests to the benchmark's server, broken and in pieces."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

from mcp_manager._core.serving_limits import ServingLimits

from ..support.served import Site, post
from ..support.wires import Network, chunked, response
from .texts import mutated, pieces, some_message

__all__ = ["fuzz_loopback", "fuzz_served", "fuzz_wires"]

Log = Callable[[str], None]


class _Promise:
    """As much of a future as a wire needs."""

    def __init__(self) -> None:
        self.outcome: object = None

    def done(self) -> bool:
        return self.outcome is not None

    def set_result(self, outcome: object) -> None:
        assert self.outcome is None and outcome is not None
        self.outcome = outcome

    set_exception = set_result


def _some_response(dice: Random) -> bytes:
    body = dice.choice([some_message(dice), b"", b"x" * dice.choice([100, 40_000, 100_000])])
    kind = dice.choice(["application/json", "text/event-stream", "text/html"])
    fields = [("Content-Type", kind), *[("Set-Cookie", "a=b")] * dice.randrange(2)]
    match dice.randrange(3):
        case 0:
            fields.append(("Transfer-Encoding", "chunked"))
            return response(status=200, headers=fields, length=None) + chunked(*pieces(dice, body))
        case 1:
            events = b"".join(b"data: <%d>\n\n" % number for number in range(dice.randrange(4)))
            return response(status=200, headers=[("Content-Type", "text/event-stream")], length=None) + events
    return response(status=dice.choice([200, 200, 404, 204]), headers=fields, length=len(body)) + body


def fuzz_wires(dice: Random, log: Log) -> None:
    """Responses in any pieces on connections that end anyhow: every exchange ends, and nothing is left."""
    network = Network(_Promise)  # type: ignore[arg-type]
    for _ in range(6):
        peer = network.connect()
        for number in range(1, dice.randrange(2, 4)):
            if number > 1 and (not peer.idle or network.pool.take() is not peer.wire):
                break
            promise: Any = peer.send(b"{}", number, timeout=60, limit=dice.choice([1 << 20, 50_000, 10]))
            cut = pieces(dice, mutated(dice, _some_response(dice)))
            log(f"deliver {cut!r:.3000}")
            peer.deliver(*cut, insists=dice.random() < 0.2)
        ending = dice.randrange(4)
        log(f"ending {ending}")
        if ending == 0:
            peer.end()
        elif ending == 1:
            network.pass_time(120)
        elif ending == 2:
            network.pool.interrupt()
        peer.lose(ConnectionResetError() if dice.random() < 0.5 else None)
        assert peer.wire.closed
        assert promise.done()
    assert len(network.wheel) == 0 and network.pool.idle == [] and network.pool.wires == set()
    assert network.pool.group.idle == 0


def _some_requests(dice: Random) -> bytes:
    requests = []
    for _ in range(dice.randrange(1, 5)):
        body = dice.choice([some_message(dice), b"", b"\r\n\r\n" * 9, b"x" * dice.choice([100, 40_000, 300_000])])
        fields = [dice.choice([b"Accept: a", b"MCP-Session-Id: s", b"Connection: close", b"Expect: 100-continue"])]
        target = dice.choice([b"/mcp", b"/mcp", b"/mcp", b"/mcp?a", b"/other"])
        version = dice.choice([b"1.1", b"1.1", b"1.1", b"1.0"])
        requests.append(post(body, *fields, target=target, version=version, pieces=dice.choice([0, 0, 1, 9])))
    return b"".join(requests)


def fuzz_served(dice: Random, log: Log) -> None:
    """Requests in any pieces, broken or not, answered anyhow: each answer goes out, and nothing is left."""
    site = Site(
        iterations=dice.choice([1, 5, 1_000]), limits=ServingLimits(max_body=200_000, max_queued=500, max_connections=4)
    )
    for _ in range(6):
        client = site.connect()
        gone: list[int] = []
        before = len(site.requests)

        def take(request: Any, gone: list[int] = gone) -> None:
            for name in (b"host", b"accept", b"other", b"connection", b""):
                request.header(name)
            request.on_gone = lambda: gone.append(1)
            way = dice.randrange(5)
            if way == 0:
                request.reply(dice.choice([200, 202, 404]), dice.choice([b"", b"{}", b"x" * 50_000]))
            elif way == 1:
                events = request.open_events(b"X: y\r\n")
                events.send(b"data: 1\n\n")
                if dice.random() < 0.5:
                    events.end()
            elif way == 2:
                raise LookupError

        site.answer = take
        data = _some_requests(dice)
        cut = pieces(dice, mutated(dice, data) if dice.random() < 0.7 else data)
        log(f"send {cut!r:.3000}")
        for piece in cut:
            client.send(piece)
            if dice.random() < 0.3:
                client.turn()
            if dice.random() < 0.1 and not client.transport.closing:
                client.transport.unsent = dice.choice([0, 400, 600])
                dice.choice([client.connection.pause_writing, client.connection.resume_writing])()
            for request in site.requests[before:]:
                if request.is_open and dice.random() < 0.5:
                    with contextlib.suppress(RuntimeError):
                        request.reply(200, b"{}")
        ending = dice.randrange(4)
        log(f"ending {ending}")
        if ending == 0:
            site.pass_time(200)
        elif ending == 1:
            site.pool.drain()
        elif ending == 2:
            site.pool.abort()
        client.lose(ConnectionResetError() if dice.random() < 0.5 else None)
        assert len(gone) <= 1
        assert not any(request.is_open for request in site.requests)
    assert len(site.wheel) == 0
    assert site.pool.open == site.pool.busy == 0
    assert site.turns.waiting == []


def fuzz_loopback(dice: Random, log: Log) -> None:
    """Requests to the benchmark's server: whatever came before, the next connection is answered."""
    from benchmarks.calls.loopback import Loopback  # noqa: PLC0415  (the parent process has built it)

    reply = SimpleNamespace(
        method=b'"m"', head=b"HTTP/1.1 200 OK\r\nContent-Length: ", suffix=b'"result":{}}', counted=12
    )
    long = SimpleNamespace(**{**vars(reply), "method": b'"long"', "suffix": b"x" * 20_000, "counted": 20_000})
    server = Loopback(
        lambda path: None if path == b"/none" else SimpleNamespace(chunked=False, prefix=b"{", answers=[reply, long])
    )
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=server.serve, args=([listener.fileno()], theirs.fileno()), daemon=True)
    thread.start()
    try:
        for _ in range(8):
            body = b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % dice.choice([b"m", b"long", b"other"])
            path = dice.choice([b"/", b"/none", b"/usage", b"/" + b"p" * dice.randrange(20_000)])
            verb = dice.choice([b"POST", b"POST", b"POST", b"GET", b"DELETE", b"PUT"])
            request = b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (verb, path, len(body), body)
            cut = pieces(dice, mutated(dice, request * dice.randrange(1, 4)))
            log(f"request {cut!r:.3000}")
            with socket.create_connection(listener.getsockname()) as client, contextlib.suppress(OSError):
                for piece in cut:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(30)
                while client.recv(65_536):
                    pass
        with socket.create_connection(listener.getsockname()) as client:
            client.settimeout(30)
            client.sendall(b"GET /usage HTTP/1.0\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 OK")
    finally:
        ours.close()
        thread.join(30)
        listener.close()
        theirs.close()
    assert not thread.is_alive()
