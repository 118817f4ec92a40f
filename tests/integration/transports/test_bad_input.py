"""What a server may answer that is no answer: one typed error for its call, a count, and nothing for anybody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, failure_of, text_of
from support.era_server import HANDSHAKE, STATELESS, EraServer
from support.processes import era_stdio

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import CallError, ConnectionLostError, DeadlineExceededError, ProtocolError, ServerExitedError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Fault, Request, encode, event

LIMIT = 64 * 1024
JSON = {"Content-Type": "application/json"}
BROKEN = "an answer that breaks the protocol"
UNASKED = "a reply that nobody waits for"
LIST = b'{"method":"tools/list"}'


class Raw:
    """Answer with bytes, as one JSON body or as one event; ``%ID%`` becomes the request's id."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        body = self._body.replace(b"%ID%", str(request.id).encode())
        if connection.server.sse:
            await connection.open_stream()
            await connection.write_chunk(b"data: " + body + b"\n\n")
            await connection.write_chunk(b"")
        else:
            await connection.respond(200, JSON, body)


class Flood:
    """Send notifications, replies to nothing and requests before the proper reply."""

    def __init__(self, *messages: Any, times: int) -> None:
        self._messages, self._times = messages, times

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        _, _, reply = connection.server.answer(request)
        await connection.open_stream()
        flood = b"".join(event(message) for message in self._messages)
        for _ in range(self._times):
            await connection.write_chunk(flood)
        await connection.write_chunk(event(reply))
        await connection.write_chunk(b"")


def result(text: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%ID%,"result":' + text + b"}"


@pytest.fixture(params=[HANDSHAKE, STATELESS])
def era(request: pytest.FixtureRequest) -> str:
    revision: str = request.param
    return revision


@pytest.fixture(params=[False, True], ids=["json", "sse"])
def server(request: pytest.FixtureRequest, era: str) -> Iterator[EraServer]:
    with EraServer(era, sse=request.param) as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def manager(request: pytest.FixtureRequest, server: EraServer) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        await manager.deploy("s", {"url": server.url, "max_response_bytes": LIMIT, **CALM})
        yield manager


async def beside(manager: McpManager, failing: Any) -> CallError:
    """Run a call that must fail beside one that must not, and one after both."""
    error, listed = await asyncio.gather(failing, manager.execute_raw("s", LIST))
    assert json.loads(listed)["result"]["tools"]
    assert text_of(await manager.execute_raw("s", echo("after"))) == "after"
    assert isinstance(error, CallError)
    return error


ANSWERS: dict[str, bytes] = {
    "wrong-id": b'{"jsonrpc":"2.0","id":987654321,"result":{}}',
    "padded-id": b'{"jsonrpc":"2.0","id":"0%ID%","result":{}}',
    "no-id": b'{"jsonrpc":"2.0","result":{}}',
    "null-id": b'{"jsonrpc":"2.0","id":null,"result":{}}',
    "a-notification": b'{"jsonrpc":"2.0","method":"notifications/x"}',
    "its-own-request": b'{"jsonrpc":"2.0","id":%ID%,"method":"tools/call"}',
    "neither": b'{"jsonrpc":"2.0","id":%ID%}',
    "error-no-object": b'{"jsonrpc":"2.0","id":%ID%,"error":7}',
    "no-json": b"Hello",
    "half": b'{"jsonrpc":"2.0","id":%ID%,"result":{',
    "empty-batch": b"[]",
    "batch": b'[{"jsonrpc":"2.0","id":%ID%,"result":{}},{"jsonrpc":"2.0","method":"x"}]',
    "no-utf8": result(b'{"content":"\xff\xfe"}'),
    "deep": result(b"[" * 2000 + b"]" * 2000),
    "deep-objects": result(b'{"a":' * 2000 + b"1" + b"}" * 2000),
    "oversize": result(b'"' + b"x" * (2 * LIMIT) + b'"'),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none_fails_its_call_alone(server: EraServer, manager: McpManager, name: str) -> None:
    server.script("tools/call", Raw(ANSWERS[name]))
    error = await beside(manager, failure_of(manager, "s", echo("bad")))
    assert isinstance(error, ProtocolError | ConnectionLostError) and error.delivery == "unknown"
    counts = manager.server("s").faults
    # What stands on a stream and answers nothing is passed over, and the stream ends without a reply.
    assert sum(counts.values()) >= 1 or name in ("a-notification", "its-own-request")
    assert server.executed == ["after"]


@pytest.mark.parametrize("text", [b"7", b'"x"', b"[]", b"null", b'{"resultType":"unheard-of"}', b'{"resultType":null}'])
async def test_a_result_of_no_known_type_fails_its_call_alone(text: bytes) -> None:
    with EraServer(STATELESS) as server:
        async with McpManager() as manager:
            await manager.deploy("s", {"url": server.url, **CALM})
            server.script("tools/call", Raw(result(text)))
            error = await beside(manager, failure_of(manager, "s", echo("bad")))
            assert isinstance(error, ProtocolError) and error.delivery == "answered"
            assert manager.server("s").faults == {BROKEN: 1}


@pytest.mark.parametrize("fault", [faults.SseNeverEnds(), faults.SseComments(), faults.NeverEndingHead()], ids=repr)
async def test_a_stream_without_an_end_lasts_as_long_as_its_calls_deadline(
    server: EraServer, manager: McpManager, fault: Fault
) -> None:
    server.script("tools/call", fault)
    error = await beside(manager, failure_of(manager, "s", echo("bad"), timeout=0.2))
    assert isinstance(error, DeadlineExceededError) and error.delivery == "unknown"


async def test_a_second_reply_is_counted_and_reaches_nobody(server: EraServer, manager: McpManager) -> None:
    server.script("tools/call", faults.DuplicateReply())
    assert text_of(await manager.execute_raw("s", echo("first"))) == "first"
    await eventually(lambda: manager.server("s").faults == {UNASKED: 1}, "the count")
    assert text_of(await manager.execute_raw("s", echo("after"))) == "after"


async def test_replies_to_nothing_are_counted_and_reach_nobody(server: EraServer, manager: McpManager) -> None:
    stray = [
        {"jsonrpc": "2.0", "id": number, "result": {"content": []}} for number in (0, -1, 10**30, 1_000_000_000, "x")
    ]
    server.script("tools/call", Flood(*stray, times=20))
    calls = [manager.execute_raw("s", echo(str(number))) for number in range(10)]
    assert [text_of(reply) for reply in await asyncio.gather(*calls)] == [str(number) for number in range(10)]
    assert manager.server("s").faults[UNASKED] >= 80


async def test_a_flood_of_notifications_delays_nobody_for_long(server: EraServer, era: str) -> None:
    taken = 0
    gate = asyncio.Event()

    async def slow(server_id: str, params: Any) -> None:
        nonlocal taken
        taken += 1
        await gate.wait()

    async with McpManager(handlers={"notifications/message": slow}) as manager:
        await manager.deploy("s", {"url": server.url, **CALM})
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 100}}
        odd = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": []}}
        server.script("tools/call", Flood(log, odd, times=2000))
        flooded = asyncio.create_task(manager.execute_raw("s", echo("flooded"), timeout=20.0))
        assert json.loads(await manager.execute_raw("s", LIST))["result"]["tools"]
        assert text_of(await flooded) == "flooded"
        counts = manager.server("s").faults
        # Those that are handled, and 1,024 that wait; the oldest have made way for them.
        assert counts["too many notifications at once"] == 2000 - taken - 1024
        assert 0 < taken <= 64
        assert counts["a malformed progress notification"] == 2000
        gate.set()


async def test_a_request_of_a_server_is_answered_in_one_era_and_counted_in_the_other(
    server: EraServer, manager: McpManager, era: str
) -> None:
    asked = {"jsonrpc": "2.0", "id": "q", "method": "ping"}
    server.script("tools/call", Flood(asked, times=3))
    assert text_of(await manager.execute_raw("s", echo("x"))) == "x"
    if era == STATELESS:
        assert manager.server("s").faults == {"a request in a stateless revision": 3}
        assert all(each.method is not None for each in server.requests)
    else:
        await server.wait_until(lambda: sum(each.message == _answer("q") for each in server.requests) == 3)
        assert not manager.server("s").faults


@pytest.mark.parametrize("cursor", ["again", ""])
async def test_cursors_that_lead_in_a_circle_are_an_error(server: EraServer, manager: McpManager, cursor: str) -> None:
    class Circle:
        async def play(self, connection: Connection, request: Request | None) -> None:
            assert request is not None
            body = {"jsonrpc": "2.0", "id": request.id, "result": {"tools": [], "nextCursor": cursor}}
            await connection.respond(200, JSON, encode(body))

    server.script_always("tools/list", Circle())
    with pytest.raises(ProtocolError):
        await manager.list_tools("s")
    assert len(server.requests_of("tools/list")) <= 3
    assert text_of(await manager.execute_raw("s", echo("after"))) == "after"


@pytest.mark.parametrize(
    "body",
    [b'{"jsonrpc":"2.0","id":%ID%,"result":{"supportedVersions":7}}', b"\xff", b"[" * 3000, result(b"[" * 400)],
)
async def test_a_malformed_answer_to_the_probe_is_no_end(body: bytes) -> None:
    with EraServer(HANDSHAKE) as server:
        server.script("server/discover", Raw(body))
        async with McpManager() as manager:
            await manager.deploy("s", {"url": server.url, **CALM})
            assert text_of(await manager.execute_raw("s", echo("x"))) == "x"


# The same over a pipe: what has no id of a call belongs to no call, and its deadline ends that.

PIPED: dict[str, tuple[list[dict[str, Any]], type[CallError]]] = {
    "wrong-id": ([{"do": "wrong_id"}], DeadlineExceededError),
    "no-json": ([{"do": "raw", "text": "Hello\n"}], DeadlineExceededError),
    "no-utf8": ([{"do": "bytes", "hex": "7b22fffe227d0a"}], DeadlineExceededError),
    "deep": ([{"do": "raw", "text": "[" * 3000 + "\n"}], DeadlineExceededError),
    "half": ([{"do": "half_reply"}, {"do": "raw", "text": "\n"}], ProtocolError),
    "empty-batch": ([{"do": "raw", "text": "[]\n"}], DeadlineExceededError),
    "its-own-request": ([{"do": "send", "what": {"jsonrpc": "2.0", "id": 1, "method": "x"}}], DeadlineExceededError),
    "oversize": ([{"do": "oversize", "size": 2 * LIMIT}], ProtocolError),
    "dies": ([{"do": "exit"}], ServerExitedError),
}


@pytest.mark.parametrize("name", PIPED)
async def test_a_line_that_is_no_answer_fails_its_call_alone(tmp_path: Path, era: str, name: str) -> None:
    actions, kind = PIPED[name]
    command = era_stdio(tmp_path / "log", era, on={"tools/call": [actions, [{"do": "proper"}]]})
    settings = {**CALM, "connect_timeout_s": 10.0, "restart": {"initial_s": 0.05, "max_s": 0.1}}
    async with McpManager() as manager:
        await manager.deploy("s", command.config(**settings, max_response_bytes=LIMIT))
        failing = asyncio.create_task(failure_of(manager, "s", echo("bad"), timeout=0.25))
        if kind is DeadlineExceededError:
            assert json.loads(await manager.execute_raw("s", LIST))["result"]["tools"]
        error = await failing
        assert isinstance(error, kind) and error.delivery == "unknown"
        if kind is DeadlineExceededError:
            assert text_of(await manager.execute_raw("s", echo("after"))) == "after"
        if kind is ProtocolError:
            assert manager.server("s").faults[BROKEN] == 1


async def test_a_second_line_with_the_same_answer_reaches_nobody(tmp_path: Path, era: str) -> None:
    command = era_stdio(tmp_path / "log", era, on={"tools/call": [[{"do": "twice"}], [{"do": "proper"}]]})
    async with McpManager() as manager:
        await manager.deploy("s", command.config(**{**CALM, "connect_timeout_s": 10.0}))
        assert text_of(await manager.execute_raw("s", echo("a"))) == "a"
        assert text_of(await manager.execute_raw("s", echo("b"))) == "b"


@pytest.mark.parametrize("text", [7, [], None, {"resultType": "unheard-of"}])
async def test_a_line_with_a_result_of_no_known_type_fails_its_call(tmp_path: Path, text: Any) -> None:
    command = era_stdio(tmp_path / "log", STATELESS, on={"tools/call": [[{"do": "result", "result": text}]]})
    async with McpManager() as manager:
        await manager.deploy("s", command.config(**{**CALM, "connect_timeout_s": 10.0}))
        error = await failure_of(manager, "s", echo("bad"))
        assert isinstance(error, ProtocolError) and error.delivery == "answered"
        assert manager.server("s").faults == {BROKEN: 1}


def _answer(request_id: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": {}}
