"""The benchmark: its server is a real one, every client is measured, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from benchmarks.calls.build import build_loopback
from benchmarks.calls.cases import Case, Framing
from benchmarks.calls.checkout import child_environment
from benchmarks.calls.children import ChildError, LoopbackServer, Worker
from benchmarks.calls.command_line import main
from benchmarks.calls.replies import STATELESS
from benchmarks.calls.serve import address
from benchmarks.calls.worker import CLIENTS
from mcp_manager import McpManager
from mcp_manager import TextContent as ManagersText

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loopback server waits with epoll")

COMMAND = [sys.executable, "-P", "-m", "benchmarks"]
SMALLEST = ["--quick", "--case", "json/100/2", "--loop", "asyncio", "--rounds", "1"]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Compile the server before it is waited for, and before a program would say that it does so."""
    build_loopback()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a loopback server, for clients that block."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "benchmarks.calls.serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield json.loads(process.stdout.readline())["port"]
        process.stdin.close()
        assert process.wait(10) == 0


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: loopback", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def request(method: str, identity: str, params: str = "{}") -> bytes:
    return f'{{"jsonrpc":"2.0","method":"{method}","params":{params},"id":{identity}}}'.encode()


class Raw:
    """A connection that is spoken to in bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def response(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") != "chunked":
            return status, headers, self.file.read(int(headers["content-length"]))
        body = b""
        while size := int(self.file.readline(), 16):
            body += self.file.read(size)
            assert self.file.readline() == b"\r\n"
        assert self.file.readline() == b"\r\n"
        return status, headers, body


def alive(port: int) -> bool:
    with Raw(port) as raw:
        raw.socket.sendall(post("/json/100", request("ping", "1")))
        return raw.response()[2] == b'{"jsonrpc":"2.0","id":1,"result":{}}'


# The server


@pytest.mark.parametrize(
    "path", ["/json/100", "/sse/100", "/json/1000000", "/sse/1000000", "/rows/10000", "/json/9/1000"]
)
async def test_the_official_client_is_answered(path: str) -> None:
    async with (
        LoopbackServer(None) as server,
        streamable_http_client(server.url(path)) as (read, write),
        ClientSession(read, write) as session,
    ):
        opened = await session.initialize()
        assert opened.protocol_version == "2025-11-25"
        assert len((await session.list_tools()).tools) == (1000 if path.endswith("/1000") else 1)
        await session.send_ping()
        result = await session.call_tool("echo", {"text": "x"})
        assert not result.is_error
        expected = Case(path.split("/")[1], int(path.split("/")[2]), 1).expected()  # type: ignore[arg-type]
        assert sum(len(item.text) for item in result.content if isinstance(item, TextContent)) == expected.letters
        assert len((result.structured_content or {"rows": []})["rows"]) == expected.rows
        with pytest.raises(MCPError, match="Method not found"):
            await session.list_prompts()


@pytest.mark.both_loops
@pytest.mark.parametrize("framing", ["json", "sse"])
async def test_the_manager_is_answered(framing: Framing) -> None:
    async with LoopbackServer(None) as server, McpManager() as manager:
        await manager.deploy("one", {"url": server.url(f"/{framing}/10000/3")})
        result = await manager.call_tool("one", "echo", {"text": "x"})
        assert len(result.text) == Case(framing, 10_000, 1).expected().letters
        assert [tool.name for tool in await manager.list_tools("one")] == ["echo", "tool_1", "tool_2"]
        # One to find out what it speaks, initialize and what follows it, a stream in vain, the call and the list.
        assert (await server.usage())["requests"] == 6


@pytest.mark.parametrize("framing", ["json", "sse", "rows"])
async def test_a_stateless_server_gives_as_much(framing: Framing) -> None:
    case = Case(framing, 10_000, 1)
    async with LoopbackServer(None) as server, McpManager() as manager:
        await manager.deploy("one", {"url": server.url(case.path + STATELESS), "protocol_version": "2026-07-28"})
        result = await manager.call_tool("one", "echo", {"text": "x"})
        letters = sum(len(block.text) for block in result.content if isinstance(block, ManagersText))
        assert (letters, result.result_type) == (case.expected().letters, "complete")
        assert len((result.structured_content or {"rows": []})["rows"]) == case.expected().rows
        assert [tool.name for tool in await manager.list_tools("one")] == ["echo"]
        # One to find out what it speaks, the call and the list.
        assert (await server.usage())["requests"] == 3


@pytest.mark.parametrize(("framing", "extra"), [("json", 0), ("sse", 0), ("rows", 200)])
@pytest.mark.parametrize("size", [200, 10_000, 1_000_000])
def test_a_reply_has_the_size_it_is_asked_for(port: int, framing: str, extra: int, size: int) -> None:
    with Raw(port) as raw:
        raw.socket.sendall(post(f"/{framing}/{size}", request("tools/call", "1234")))
        status, headers, body = raw.response()
    assert status == 200
    assert size <= len(body) <= size + extra
    if framing == "sse":
        assert headers["content-type"] == "text/event-stream"
        assert body.startswith(b"event: message\ndata: ") and body.endswith(b"\n\n")
        body = body[len(b"event: message\ndata: ") : -2]
    assert json.loads(body)["id"] == 1234


@pytest.mark.parametrize(
    "identity", ["0", "-7", "12345678901234567890123456789", '"a \\" \\\\ {id}"', '"' + "x" * 500 + '"']
)
@pytest.mark.parametrize("framing", ["json", "sse"])
def test_the_id_comes_back_as_it_was_written_whatever_the_pieces(port: int, identity: str, framing: str) -> None:
    params = '{"id":"not this","deep":[{"id":[1,2,"]}"]},"\\\\"],"method":"nor this"}'
    whole = post(f"/{framing}/100", request("ping", identity, params))
    with Raw(port) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in whole:
            raw.socket.sendall(bytes([byte]))
        assert f'"id":{identity},"result":{{}}}}'.encode() in raw.response()[2]
        # The same connection serves on, requests that come together included.
        raw.socket.sendall(whole * 3 + whole[:40])
        for _ in range(3):
            assert raw.response()[0] == 200
        raw.socket.sendall(whole[40:])
        assert raw.response()[0] == 200


@pytest.mark.slow
@given(
    identities=st.lists(st.integers() | st.text(max_size=20), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 4000), max_size=8),
    framing=st.sampled_from(["json", "sse"]),
)
def test_every_reply_has_its_id_however_the_requests_are_cut(
    port: int, identities: list[int | str], cuts: list[int], framing: str
) -> None:
    sent = b"".join(post(f"/{framing}/100", request("tools/call", json.dumps(each))) for each in identities)
    places = sorted([0, *(min(cut, len(sent)) for cut in cuts), len(sent)])
    with Raw(port) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in itertools.pairwise(places):
            raw.socket.sendall(sent[start:end])
        for each in identities:
            body = raw.response()[2]
            assert json.loads(body[body.index(b"{") :])["id"] == each


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_arbitrary_bytes_harm_nobody(port: int, head: bytes, body: bytes) -> None:
    with Raw(port) as raw, contextlib.suppress(OSError):
        raw.socket.sendall(post("/json/100", b'{"id":1,' + body) + head)
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.file.read().startswith(b"HTTP/1.1 ")
    assert alive(port)


def test_what_is_no_call_has_its_own_status(port: int) -> None:
    cases = {
        post("/json/100", b'{"jsonrpc":"2.0","method":"notifications/initialized"}'): 202,
        post("/json/100", b'{"jsonrpc":"2.0","id":1,"result":{}}'): 202,
        b"GET /json/100 HTTP/1.1\r\n\r\n": 405,
        b"DELETE /json/100 HTTP/1.1\r\nMcp-Session-Id: loopback\r\n\r\n": 200,
        post("/yaml/100", request("ping", "1")): 404,
        post("/json/100/1000000", request("ping", "1")): 404,
    }
    with Raw(port) as raw:
        for sent, status in cases.items():
            raw.socket.sendall(sent)
            assert raw.response()[0] == status
        raw.socket.sendall(post("/json/100", request("initialize", "1")))
        assert raw.response()[1]["mcp-session-id"]
        raw.socket.sendall(post("/json/100", request("server/discover", "1")))
        assert json.loads(raw.response()[2])["error"]["code"] == -32601
        raw.socket.sendall(post("/json/100", request("ping", "1"), "Connection: close"))
        assert raw.response()[0] == 200
        assert raw.file.read() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n",
        b"\x00" * 20_000,
        b"POST\r\n\r\n",
        b"POST /json/100\r\n\r\n",
        b"POST /json/100 HTTP/2.0\r\n\r\n",
        b"PUT /json/100 HTTP/1.1\r\n\r\n",
        b"POST /json/100 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /json/100 HTTP/1.1\r\nContent-Length: 1 2\r\n\r\n",
        b"POST /json/100 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /json/100 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /json/100 HTTP/1.1\r\n" + b"X: y\r\n" * 10_000,
        *(
            post("/json/100", body)
            for body in (b"", b"[]", b"{", b'{"id"', b'{"id":', b'{"id":1', b'{"id":"', b'{"a":1 "b"}')
        ),
        post("/json/100", request("ping", '"' + "x" * 600 + '"')),
    ],
)
def test_garbage_ends_its_connection_and_nothing_else(port: int, garbage: bytes) -> None:
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    # It is the server that closes; its answer may be lost when it does so while there is more to come.
    with Raw(port) as raw, contextlib.suppress(ConnectionError):
        raw.socket.sendall(garbage)
        assert raw.file.read() == refused
    assert alive(port)


def test_large_bodies_go_through_in_both_directions(port: int) -> None:
    large = request("tools/call", "77", json.dumps({"name": "echo", "arguments": {"text": 'x\\"' * 500_000}}))
    with Raw(port) as raw:
        for framing in ("json", "sse"):
            raw.socket.sendall(post(f"/{framing}/1000000", large))
            assert b'"id":77,' in raw.response()[2][:60]


def test_a_slow_reader_gets_every_byte_of_pipelined_replies(port: int) -> None:
    with Raw(port) as raw, Raw(port) as other:
        raw.socket.sendall(b"".join(post("/json/1000000", request("tools/call", str(n))) for n in range(30)))
        # The first one does not read: it must hold up nobody else.
        other.socket.sendall(post("/json/100", request("ping", "1")))
        assert other.response()[0] == 200
        assert [json.loads(raw.response()[2])["id"] for _ in range(30)] == list(range(30))


def test_many_connections_are_served_at_once(port: int) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Raw(port)) for _ in range(300)]
        for number, each in enumerate(connections):
            each.socket.sendall(post("/json/100", request("tools/call", str(number))))
        assert [json.loads(each.response()[2])["id"] for each in connections] == list(range(300))
    assert alive(port)


async def test_it_listens_on_as_many_addresses_as_it_is_told() -> None:
    async with LoopbackServer(None, addresses=300) as server:
        for number in (0, 249, 250, 299):
            host = address(number)
            assert host.startswith("127.0.")
            _, writer = await asyncio.open_connection(host, server.port)
            writer.close()
            await writer.wait_closed()


# The clients


@pytest.mark.slow
async def test_a_wrong_reply_is_noticed_by_every_client() -> None:
    case = Case("json", 300, 1)
    wrong = [*case.expected()._replace(letters=1, ending="no such end")]
    async with LoopbackServer(None) as server:
        for client in set(CLIENTS) - {"bare lane"}:
            async with Worker(client, "asyncio", None) as worker:
                answer = await worker.ask(
                    {"do": "calls", "url": server.url(case.path), "in_flight": 1, "calls": 1, "expected": wrong}
                )
            assert "WrongReplyError" in answer["failed"], client


async def test_a_process_that_ended_is_an_error_that_says_why() -> None:
    async with Worker("execute_raw", "asyncio", None) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ChildError, match="ended"):
            await worker.ask({"do": "close"})
    with pytest.raises(ChildError, match="invalid int value"):
        async with Worker("execute_raw", "asyncio", "no core") as worker:  # type: ignore[arg-type]
            await worker.ask({"do": "close"})


# The command


def run_bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=110, env={**child_environment(), **environment}
    )


@pytest.mark.slow
def test_a_miniature_comparison_prints_and_writes_everything(tmp_path: Path) -> None:
    done = run_bench(*SMALLEST, "--json", str(tmp_path / "b.json"), "--svg", str(tmp_path / "b.svg"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "100 B JSON, 2 in flight, asyncio" in done.stdout
    written: dict[str, Any] = json.loads((tmp_path / "b.json").read_text())
    assert written["machine"] and written["date"] and written["versions"]["mcp"]
    measured = {each["client"]: each for each in written["samples"]}
    assert set(measured) | set(written["missing"]) == set(CLIENTS)
    assert set(written["missing"]) <= {"bare lane"}
    assert written["failed"] == []
    for client, sample in measured.items():
        assert client in done.stdout
        assert sample["cpu_us_per_call"] > 0 and sample["p50_us"] <= sample["p99_us"] and sample["calls"] >= 5
    root = ElementTree.parse(tmp_path / "b.svg").getroot()
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(measured) <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == len(measured)
    assert any(written["machine"] in (text or "") for text in texts) or written["date"] in " ".join(map(str, texts))


@pytest.mark.slow
def test_a_peer_that_is_not_there_is_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "fastmcp.py").write_text("raise ImportError('it is not installed')")
    chosen = ["--client", "fastmcp", "--client", "execute_raw"]
    paths = os.pathsep.join([str(tmp_path), child_environment()["PYTHONPATH"]])
    done = run_bench(*SMALLEST, *chosen, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert "left out: fastmcp (it is not installed)" in done.stdout
    assert "execute_raw" in done.stdout and "aiohttp + orjson" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--case", "json/100"], "'json/100' is not a case"),
        (["--case", "json/100/0"], "out of bounds"),
        (["--case", "json/17M/1"], "out of bounds"),
        (["--client", "curl"], "'curl' is not a client"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--quick", "--full"], "not allowed with"),
        (["--loop", "trio"], "is not one of"),
        (["--svg", "/no/such/directory/x.svg"], "Cannot write"),
    ],
)
def test_misuse_is_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err and captured.err.count("\n") == 1


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for option in (
        "--quick",
        "--full",
        "--case",
        "--client",
        "--loop",
        "--rounds",
        "--json",
        "--svg",
        "--targets",
        "--strict",
    ):
        assert option in out


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_its_processes_end_with_it(signal_number: int) -> None:
    command = [*COMMAND, "--quick"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        children = wait_for_children(process.pid, 3)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=30)
        _, left = psutil.wait_procs(children, timeout=30)
    assert left == []
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal_number)
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_client_that_waits_for_an_answer_ends_with_it_too() -> None:
    command = [*COMMAND, "--quick", "--client", "aiohttp + orjson", "--rounds", "1000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=child_environment()) as process:
        children = wait_for_children(process.pid, 2)
        (server,) = (each for each in children if "benchmarks.calls.serve" in each.cmdline())
        (client,) = (each for each in children if each != server)
        wait_until(lambda: any(each.status == psutil.CONN_ESTABLISHED for each in client.net_connections()))
        server.suspend()
        try:
            process.kill()
            _, left = psutil.wait_procs([client], timeout=20)
        finally:
            server.resume()
        assert left == []
        assert psutil.wait_procs([server], timeout=20)[1] == []


def wait_for_children(pid: int, count: int) -> list[psutil.Process]:
    wait_until(lambda: len(psutil.Process(pid).children()) >= count)
    return psutil.Process(pid).children()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_command_line_of_the_package_loads_none_of_it() -> None:
    code = (
        "import sys, mcp_manager.cli;"
        "mcp_manager.cli.main(['--version']); mcp_manager.cli.main(['bench']);"
        "print([name for name in sys.modules if 'bench' in name])"
    )
    command = [sys.executable, "-P", "-c", code]
    # It could be loaded: the checkout is in the path.
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=child_environment())
    assert done.stdout.splitlines()[-1] == "[]"
