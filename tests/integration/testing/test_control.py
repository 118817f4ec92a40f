"""Faults and the ledger over the wire, and the command line's fault server: what any language can use."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import msgspec
import pytest

from mcp_manager import testing
from mcp_manager.cli.manual import topics
from mcp_manager.testing import AnyFault, Faults, FaultyServer, FaultyServerFactory, LeakCheck, Tool
from mcp_manager.testing.faults.wire import FaultOrder, decode_order

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "book", "arguments": {"seat": 7}}}


def ask(verb: str, url: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Send a request as a program without this package does; return the status and the JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def call(base: str) -> tuple[int, Any]:
    """Shake hands, and call the tool."""
    request = urllib.request.Request(f"{base}/mcp", json.dumps(INITIALIZE).encode())
    with urllib.request.urlopen(request, timeout=20) as response:
        session = response.headers["Mcp-Session-Id"]
    fields = {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    return ask("POST", f"{base}/mcp", CALL, **fields)


@pytest.fixture
def server(faulty_server: FaultyServerFactory) -> FaultyServer:
    return faulty_server(tools={"book": Tool()})


@pytest.fixture
def base(server: FaultyServer) -> str:
    return server.url.removesuffix("/mcp")


def test_faults_are_set_and_cleared(server: FaultyServer, base: str) -> None:
    status, told = ask("POST", f"{base}/__faults", {"fault": "status", "status": 429, "headers": {"Retry-After": "3"}})
    waiting = {"fault": "status", "status": 429, "headers": {"Retry-After": "3"}, "body": ""}
    assert (status, told) == (200, {"next": {"tools/call": [waiting]}, "always": {}, "server": []})
    assert call(base)[0] == 429
    assert ask("GET", f"{base}/__faults") == (200, {"next": {}, "always": {}, "server": []})
    assert call(base)[0] == 200
    order = {"faults": [{"fault": "status", "status": 500}], "on": "initialize", "always": True}
    assert ask("POST", f"{base}/__faults", order)[1]["always"].keys() == {"initialize"}
    assert ask("POST", f"{base}/mcp", INITIALIZE)[0] == 500
    assert ask("DELETE", f"{base}/__faults")[1]["always"] == {}
    assert ask("POST", f"{base}/mcp", INITIALIZE)[0] == 200
    # Control leaves no trace among the requests of clients.
    assert {request.path for request in server.requests} == {"/mcp"}


def test_the_ledger_is_read_and_cleared(base: str) -> None:
    assert call(base)[0] == 200
    [entry] = ask("GET", f"{base}/__ledger")[1]["entries"]
    assert (entry["tool"], entry["arguments"], entry["request_id"]) == ("book", {"seat": 7}, 2)
    assert ask("DELETE", f"{base}/__ledger") == (200, {"entries": []})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"fault": "rest"}, "there is no fault 'rest': did you mean reset? - at `$.faults[0].fault`"),
        ([{"fault": 7}], 'a fault is an object such as {"fault": "reset", "after": "headers"} - at `$.faults[0]`'),
        ({"fault": "reset", "after": "lunch"}, "Invalid enum value 'lunch' - at `$.faults[0].after`"),
        ({"fault": "reset", "when": "now"}, "the fault reset has after, not when - at `$.faults[0]`"),
        (
            {"fault": "truncate_stream", "times": 2},
            'the fault truncate_stream has no members, not times; that is for {"faults": [...], "times": ...} '
            "- at `$.faults[0]`",
        ),
        ({"faults": [], "times": 0}, "times is 1 at least, and gives 100,000 faults at most, not 0 - at `$.times`"),
        ({"faults": [{"fault": "reset"}] * 2, "always": True}, "always takes one fault, not 2 - at `$.always`"),
        (
            {"faults": [{"fault": "reset"}], "on": "book"},
            "on is a method such as tools/call, initialize or DELETE, or *, or connect, not 'book'",
        ),
        (
            {"faults": [{"fault": "reset"}], "on": "tool/call"},
            "there is no method 'tool/call': did you mean tools/call?",
        ),
        ({"faults": [{"fault": "reset"}], "on": "DELTE"}, "there is no method 'DELTE': did you mean DELETE?"),
        (
            {"faults": [{"fault": "reset"}], "on": "initialise"},
            "there is no method 'initialise': did you mean initialize?",
        ),
        ({"fault": "list_changed_storm", "rate": 0}, "Expected `float` > 0.0 - at `$.faults[0].rate`"),
        ({"fault": "exit", "after": -1}, "Expected `int` >= 0 - at `$.faults[0].after`"),
        ({"fault": "stall", "s": -1}, "Expected `float` >= 0.0 - at `$.faults[0].s`"),
        ({"fault": "ignore_sigterm"}, 'only a program gets SIGTERM: use faulty_server(transport="stdio")'),
        ({"fault": "flap", "period": 0}, "flap needs a period above 0, not 0"),
        ({"fault": "slow", "p50": 2, "p99": 1}, "slow needs 0 < p50 <= p99, not p50=2, p99=1"),
        (7, "Expected `object`, got `int`"),
    ],
)
def test_what_is_no_fault_is_refused(base: str, body: object, told: str) -> None:
    assert ask("POST", f"{base}/__faults", body) == (400, {"error": told})
    assert ask("GET", f"{base}/__faults")[1] == {"next": {}, "always": {}, "server": []}


def test_a_server_may_have_methods_of_its_own(server: FaultyServer) -> None:
    server.next(Faults.reset(), on="seats/reserve")
    server.always(Faults.reset(), on="GET")


def raw(url: str, *parts: bytes) -> bytes:
    """Send bytes as a simple client does, which reads until the server closes; return what was received."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as client:
        for part in parts:
            client.sendall(part)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


def posted(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    "request_head", [b"GET /__faults HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /__faults HTTP/1.0\r\n\r\n"]
)
def test_a_client_that_reads_to_the_end_gets_one(base: str, request_head: bytes) -> None:
    assert raw(base, request_head).endswith(b'{"next":{},"always":{},"server":[]}\n')


@pytest.mark.parametrize(
    "arguments", [rb'{"text": "\ud83d"}', b'{"n": 1000000000000000000000000000000}', b"[1]"], ids=str
)
def test_whatever_a_client_sends_is_answered_and_in_the_ledger(
    server: FaultyServer, base: str, arguments: bytes
) -> None:
    call = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "book", "arguments": %b}}'
    fields = (f"Mcp-Session-Id: {server.begin_session()}", "MCP-Protocol-Version: 2025-11-25")
    reply = json.loads(raw(base, posted("/mcp", call % arguments, *fields)).partition(b"\r\n\r\n")[2])
    given = json.loads(arguments)
    entries = ask("GET", f"{base}/__ledger")[1]["entries"]
    if isinstance(given, list):
        assert (reply["error"]["code"], entries) == (-32602, [])
    else:
        assert [entry["arguments"] for entry in entries] == [given]


def test_a_request_that_is_no_http_is_refused(base: str) -> None:
    for bad in (b"hello\r\n\r\n", b"POST /mcp HTTP/1.1\r\nContent-Length: -5\r\n\r\nabcdefgh"):
        assert raw(base, bad).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_no_json_is_explained(base: str) -> None:
    for body in (b"", b"fault=reset"):
        answer = raw(base, posted("/__faults", body))
        assert b" 400 " in answer and b'faults are JSON, such as {\\"fault\\": \\"reset\\"' in answer


def test_a_fault_that_cannot_be_played_ends_the_connection(
    server: FaultyServer, base: str, leaks: LeakCheck, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def play(self, connection: object, request: object) -> None:
            raise LookupError("broken on purpose")

    leaks.allow("loop_errors", reason="the server reports it")
    server.next(Broken(), on="initialize")
    with pytest.raises(ConnectionResetError):
        raw(base, posted("/mcp", json.dumps(INITIALIZE).encode()))


def test_faults_are_checked_in_python_too(server: FaultyServer) -> None:
    for bad in ("reset", Faults.reset, [Faults.reset()], Faults):
        with pytest.raises(ValueError, match="a fault is made by a function"):
            server.next(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Expected `int`, got `str` - at `\$.status`"):
        server.always(Faults.status("503"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not 'book'"):
        server.next(Faults.reset(), on="book")


def test_a_server_needs_an_era_and_tools(faulty_server: FaultyServerFactory) -> None:
    with pytest.raises(ValueError, match='era is "handshake"'):
        faulty_server(era="2026-07-28")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="tools is a mapping of names to Tool"):
        faulty_server(tools=["book"])  # type: ignore[call-overload]
    with pytest.raises(ValueError, match='transport is "http" or "stdio"'):
        faulty_server(transport="sse")  # type: ignore[call-overload]


def test_a_server_is_stopped_and_started_by_a_test(server: FaultyServer, base: str) -> None:
    server.stop()
    server.stop()
    with pytest.raises(RuntimeError, match="the server is not running"):
        server.refuse_connections()
    server.start()
    assert server.url == f"{base}/mcp" and ask("GET", f"{base}/__faults")[0] == 200
    with pytest.raises(RuntimeError, match="running already"):
        server.start()


def test_flapping_begins_and_ends_at_once(server: FaultyServer, base: str) -> None:
    for _ in range(3):
        server.next(Faults.flap(60))
        with pytest.raises(OSError):
            raw(base, b"GET /__faults HTTP/1.0\r\n\r\n")
        server.clear_faults()
        assert raw(base, b"GET /__faults HTTP/1.0\r\n\r\n")


def test_answers_end_with_an_end_of_line(base: str) -> None:
    with urllib.request.urlopen(f"{base}/__ledger", timeout=20) as response:
        assert response.read() == b'{"entries":[]}\n'


def test_other_paths_and_web_pages_are_refused(base: str) -> None:
    assert ask("POST", f"{base}/__other", {})[0] == 404
    assert ask("PUT", f"{base}/__faults", {})[0] == 404
    assert ask("POST", f"{base}/__faults", {"fault": "reset"}, Origin="http://example.com")[0] == 403


@pytest.mark.parametrize("kind", get_args(AnyFault), ids=lambda kind: kind.__name__)
def test_every_fault_is_data(kind: type[msgspec.Struct]) -> None:
    given = {"status": 500, "location": "/", "extra": 1, "count": 1, "size": 1, "body": b"x", "result": {}, "code": 1}
    given |= {"revision": "1", "p50": 1.0, "p99": 2.0, "period": 1.0, "tool": "a", "description": "b"}
    needed = {field.name for field in msgspec.structs.fields(kind) if field.required}
    fault = kind(**{name: given[name] for name in needed})
    assert decode_order(msgspec.json.encode(fault)) == FaultOrder(faults=[fault])  # type: ignore[list-item]


def test_each_constructor_has_the_name_of_its_fault() -> None:
    given: dict[str, tuple[Any, ...]] = {"status": (500,), "slow": (1, 2), "flap": (1,), "rug_pull": ("a", "b")}
    names = [name for name in vars(Faults) if not name.startswith("_")]
    assert len(names) == 17
    for name in names:
        assert msgspec.to_builtins(getattr(Faults, name)(*given.get(name, ())))["fault"] == name


def test_the_manual_has_every_fault_and_every_name() -> None:
    text = topics()["testing"].text
    rows = [cell for line in text.splitlines() if line.startswith("| `") for cell in line.split("|")[1:2]]
    shown = {name for cell in rows for name in re.findall(r"`(\w+)\(", cell)}
    faults = {name for name in vars(Faults) if not name.startswith("_")}
    assert faults <= shown
    assert [name for name in testing.__all__ if f"`{name}" not in text and f" {name}" not in text] == []
    assert sorted(testing.__all__, key=lambda name: (name[0].islower(), name)) == testing.__all__


# The command line

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run() -> Iterator[Any]:
    """Start ``mcp-manager fault-server`` with further arguments."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mcp_manager", "fault-server", *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, cwd=ROOT, env={**os.environ}, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def test_the_command_serves_until_a_signal(run: Any) -> None:
    process = run("--tool", "book", "--json", "--fault", '{"fault": "status", "status": 503}')
    places = json.loads(process.stdout.readline())
    base = places["url"].removesuffix("/mcp")
    assert places == {"url": f"{base}/mcp", "faults": f"{base}/__faults", "ledger": f"{base}/__ledger"}
    assert [call(base)[0] for _ in range(2)] == [503, 200]
    assert len(ask("GET", places["ledger"])[1]["entries"]) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    assert process.stderr.read() == ""


def test_the_command_tells_how_it_is_used_and_exits_as_told(run: Any) -> None:
    process = run()
    lines = [process.stdout.readline() for _ in range(3)]
    assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+/mcp\n", lines[0])
    _, _, body, url = re.fullmatch(r"(set faults): (curl -d) '(.*)' (\S+)\n", lines[1]).groups()  # type: ignore[union-attr]
    assert ask("POST", url, json.loads(body))[0] == 200
    ask("DELETE", url)
    ask("POST", url, {"fault": "exit", "code": 7})
    with pytest.raises(OSError):
        ask("POST", url.replace("__faults", "mcp"), INITIALIZE)
    assert process.wait(20) == 7


def test_the_command_is_a_program(run: Any) -> None:
    process = run("--stdio", "--era", "handshake", "--tool", "book")
    url = process.stderr.readline().split()[-1]
    ask("POST", url, {"fault": "wrong_id"})
    process.stdin.write(json.dumps(CALL) + "\n" + json.dumps({**CALL, "id": 3}) + "\n")
    process.stdin.flush()
    ids = {json.loads(process.stdout.readline())["id"] for _ in range(2)}
    assert len(ids - {2, 3}) == 1
    assert len(ask("GET", url.replace("__faults", "__ledger"))[1]["entries"]) == 2
    process.stdin.close()
    assert process.wait(20) == 0


def test_the_command_answers_after_what_is_no_text(run: Any) -> None:
    process = run("--stdio", "--tool", "book")
    process.stdin.buffer.write(b"\xff\xfe\n" + b"[" * 100_000 + b"\n" + json.dumps(CALL).encode() + b"\n")
    process.stdin.close()
    assert json.loads(process.stdout.readline())["id"] == 2
    assert process.wait(20) == 0


def test_the_output_that_a_command_has_closed_is_no_other_socket(run: Any) -> None:
    process = run("--stdio", "--tool", "book")
    url = process.stderr.readline().split()[-1]
    ask("POST", url, {"fault": "reset"})
    process.stdin.write(json.dumps(CALL) + "\n")
    process.stdin.flush()
    assert process.stdout.read() == ""
    # It gets the lowest number that is free.
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=20) as client:
        process.stdin.write(json.dumps(CALL) + "\n")
        process.stdin.close()
        assert process.wait(20) == 0
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    assert "Traceback" not in process.stderr.read()


def test_a_fault_that_is_none_is_misuse(run: Any) -> None:
    process = run("--fault", '{"fault": "rest"}')
    assert process.wait(20) == 2
    assert "there is no fault 'rest': did you mean reset?" in process.stderr.read()
