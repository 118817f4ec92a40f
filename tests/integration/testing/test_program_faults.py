"""Every fault of a faulty program, seen from the outside: on its pipes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_manager.testing import Era, Faults, FaultyProgram, FaultyServerFactory, Request, Tool, faults
from mcp_manager.testing.scripted.stateless import META, STATELESS


class Pipe:
    """A client on the pipes of one process."""

    def __init__(self, process: asyncio.subprocess.Process, era: Era) -> None:
        self.process = process
        self.era = era
        self.number = 0

    async def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        await self.process.stdin.drain()

    async def line(self) -> bytes:
        """Return the next line; nothing at the end of the output."""
        assert self.process.stdout is not None
        return await asyncio.wait_for(self.process.stdout.readline(), 20)

    async def message(self) -> Any:
        return json.loads(await self.line())

    async def begin(self, tool: str = "book", **more: Any) -> None:
        """Send a call of a tool."""
        self.number += 1
        params: dict[str, Any] = {"name": tool, "arguments": {}, **more}
        if self.era == "stateless":
            params["_meta"] = {f"{META}protocolVersion": STATELESS, f"{META}clientCapabilities": {}}
        await self.send({"id": self.number, "method": "tools/call", "params": params})

    async def call(self, **more: Any) -> Any:
        await self.begin(**more)
        return await self.message()


@pytest.fixture(params=["handshake", "stateless"])
def program(request: pytest.FixtureRequest, faulty_server: FaultyServerFactory) -> FaultyProgram:
    return faulty_server(request.param, {"book": Tool()}, transport="stdio")


async def started(program: FaultyProgram) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*program.command, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.fixture
async def pipe(program: FaultyProgram) -> AsyncIterator[Pipe]:
    process = await started(program)
    yield Pipe(process, program.era)
    if process.returncode is None:
        process.kill()
    # Reads what is left, and closes the pipes.
    await process.communicate()


async def test_it_answers_correctly(pipe: Pipe, program: FaultyProgram) -> None:
    reply = await pipe.call()
    assert (reply["id"], reply["result"]["isError"]) == (pipe.number, False)
    [entry] = program.ledger.entries
    assert entry.pid == pipe.process.pid
    assert program.pids == [pipe.process.pid]
    assert program.spec == {"command": program.command[0], "args": program.command[1:]}


@pytest.mark.parametrize(
    ("fault", "executed"),
    [(Faults.reset(), 0), (Faults.reset("execution"), 1), (Faults.reset("half"), 1), (Faults.truncate_stream(), 1)],
)
async def test_its_output_ends(pipe: Pipe, program: FaultyProgram, fault: faults.FaultRecord, executed: int) -> None:
    program.next(fault)
    await pipe.begin()
    got = await pipe.line()
    assert not got.endswith(b"\n")
    assert bool(got) == (fault in (Faults.reset("half"), Faults.truncate_stream()))
    assert len(program.ledger) == executed


async def test_it_stalls_one_call_alone(pipe: Pipe, program: FaultyProgram) -> None:
    program.next(Faults.stall(), Faults.accepted_without_answer())
    await pipe.begin()
    await program.wait_for("tools/call")
    await pipe.begin()
    await program.wait_for("tools/call", 2)
    assert (await pipe.call())["id"] == 3
    assert len(program.ledger) == 2


async def test_its_replies_are_odd(pipe: Pipe, program: FaultyProgram) -> None:
    program.next(Faults.duplicate_id(), Faults.wrong_id(), faults.StringId(), faults.RpcErrorReply(-32603, "no"))
    first = await pipe.call()
    second = await pipe.message()
    assert first["id"] == second["id"] == 1
    assert (await pipe.call())["id"] not in (1, 2)
    assert (await pipe.call())["id"] == "3"
    assert (await pipe.call())["error"] == {"code": -32603, "message": "no"}


async def test_it_exits_and_its_script_goes_on_in_the_next_process(pipe: Pipe, program: FaultyProgram) -> None:
    program.next(Faults.exit(7, after=1))
    await pipe.call()
    await pipe.begin()
    assert await pipe.process.wait() == 7
    process = await started(program)
    again = Pipe(process, program.era)
    await again.call()
    assert [entry.pid for entry in program.ledger.entries] == [pipe.process.pid, process.pid]
    assert process.stdin is not None
    process.stdin.close()
    await process.communicate()
    assert process.returncode == 0


async def test_it_ignores_sigterm(program: FaultyProgram) -> None:
    program.next(Faults.ignore_sigterm())
    process = await started(program)
    stubborn = Pipe(process, program.era)
    await stubborn.call()
    process.send_signal(signal.SIGTERM)
    assert (await stubborn.call())["id"] == 2
    assert process.stdin is not None
    process.stdin.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.3)
    process.kill()
    await process.communicate()


async def test_it_floods_its_stderr(pipe: Pipe, program: FaultyProgram) -> None:
    program.next(Faults.stderr_flood(200_000))
    await pipe.begin()
    assert pipe.process.stderr is not None
    assert len(await asyncio.wait_for(pipe.process.stderr.readexactly(200_000), 20)) == 200_000
    assert (await pipe.message())["id"] == 1


async def test_it_is_slow(pipe: Pipe, program: FaultyProgram) -> None:
    program.next(Faults.slow(0.05, 0.05))
    began_s = time.monotonic()
    await pipe.call()
    assert time.monotonic() - began_s >= 0.05


async def test_it_asks_and_tells(pipe: Pipe, program: FaultyProgram) -> None:
    program.next(Faults.input_required("Which seat?"), Faults.list_changed_storm(rate=5000, count=20))
    asked = await pipe.call()
    program.ledger.assert_not_executed("book")
    if program.era == "stateless":
        assert asked["result"]["inputRequests"]["input"]["params"]["message"] == "Which seat?"
    else:
        assert asked["params"]["message"] == "Which seat?"
        await pipe.send({"id": asked["id"], "result": {"action": "accept", "content": {}}})
        assert (await pipe.message())["id"] == 1
        program.ledger.assert_executed_once("book")
    await pipe.begin()
    told = [await pipe.message() for _ in range(21)]
    assert [each.get("method") for each in told] == ["notifications/tools/list_changed"] * 20 + [None]


def test_it_is_no_server_of_http(program: FaultyProgram) -> None:
    status, _, reply = program.answer(
        Request(number=0, connection=0, verb="POST", path="/mcp", headers={}, body=b"", message={"id": 1})
    )
    assert status == 404
    assert reply is not None and "start its command" in reply["error"]["message"]


@pytest.mark.parametrize("fault", [Faults.status(429), Faults.gzip_bomb(), Faults.expire_session(), Faults.flap(1.0)])
def test_what_only_http_has_is_refused(fault: faults.FaultRecord, faulty_server: FaultyServerFactory) -> None:
    with pytest.raises(ValueError, match=r"for a program|a program has no connections"):
        faulty_server(transport="stdio").next(fault)
