"""Faults and the ledger over the wire, and the command line's fault server: what any language can use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from mcp_manager import testing
from mcp_manager.cli.manual import topics
from mcp_manager.testing import AnyFault, Faults, FaultyServer, FaultyServerFactory, Hold, Tool
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
        ({"fault": "rest"}, "unknown fault 'rest' (did you mean 'reset'?) - at `$.faults[0].fault`"),
        ({"fault": "reset", "after": "lunch"}, "Invalid enum value 'lunch' - at `$.faults[0].after`"),
        ({"fault": "reset", "when": "now"}, "Object contains unknown field `when` - at `$.faults[0]`"),
        ({"faults": [], "times": 0}, "times is a number from 1 to 100,000, not 0 - at `$.times`"),
        ({"fault": "ignore_sigterm"}, 'only a program gets SIGTERM: use faulty_server(transport="stdio")'),
        ({"fault": "flap", "period": 0}, "flap needs a period above 0, not 0"),
        ({"fault": "slow", "p50": 2, "p99": 1}, "slow needs 0 < p50 <= p99, not p50=2, p99=1"),
        (7, "Expected `object`, got `int`"),
    ],
)
def test_what_is_no_fault_is_refused(base: str, body: object, told: str) -> None:
    assert ask("POST", f"{base}/__faults", body) == (400, {"error": told})
    assert ask("GET", f"{base}/__faults")[1] == {"next": {}, "always": {}, "server": []}


def test_an_unknown_fault_is_told_the_known_ones(base: str) -> None:
    status, told = ask("POST", f"{base}/__faults", [{"fault": "reset"}, {"fault": "zzz"}])
    assert status == 400
    assert told["error"].startswith("unknown fault 'zzz' (known are accepted_without_answer, ")
    assert told["error"].endswith(") - at `$.faults[1].fault`")


def test_answers_end_with_an_end_of_line(base: str) -> None:
    with urllib.request.urlopen(f"{base}/__ledger", timeout=20) as response:
        assert response.read() == b'{"entries":[]}\n'


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("reset", "'reset' is no fault; Faults makes them, as in Faults.reset()"),
        (Faults.reset, "is no fault; call it: reset()"),
        (Hold, "is no fault; call it: Hold()"),
        (Faults.reset(after="body"), "Reset(after='body') is no fault: Invalid enum value 'body' - at `$.after`"),  # type: ignore[arg-type]
        (Faults.expire_session(410), "is no fault: Invalid enum value 410 - at `$.form`"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_fault_is_refused_in_python(server: FaultyServer, mistake: Any, told: str) -> None:
    for play in (server.next, server.always):
        with pytest.raises(ValueError, match=re.escape(told)):
            play(mistake)
    with pytest.raises(ValueError, match="times is a number from 1, not 0"):
        server.next(Faults.reset(), times=0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"era": "2025-11-25"}, "era is 'handshake' or 'stateless', not '2025-11-25'"),
        ({"transport": "sse"}, "transport is 'http' or 'stdio', not 'sse'"),
        ({"tools": ["book"]}, 'tools is a mapping of Tool objects by name, as in {"book": Tool()}'),
        ({"tools": {"book": {}}}, 'tools is a mapping of Tool objects by name, as in {"book": Tool()}'),
    ],
)
def test_what_describes_no_server_is_refused(
    faulty_server: FaultyServerFactory, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        faulty_server(**options)


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


def test_a_fault_that_is_none_is_misuse(run: Any) -> None:
    process = run("--fault", '{"fault": "rest"}')
    assert process.wait(20) == 2
    assert "unknown fault 'rest' (did you mean 'reset'?)" in process.stderr.read()
