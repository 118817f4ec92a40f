"""``mcp-manager serve --workers 2``: processes are killed while clients call, and no answer is lost or doubled.

The tests share one service, because its start takes most of the time; the last one kills it. That of the owner comes
first: the parent waits longer with each death of a worker.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.ledger import noting_http, noting_stdio, read_ledger
from support.processes import HttpServerProcess
from support.served_workers import ServedWorkers
from support.session_clients import SessionClient

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
    pytest.mark.allow_leaks("children", "descriptors", reason="the service of all tests restarts its processes"),
]

CALLS = 20
# Whether the server is a program, and what the client can do; None: a client of 2026-07-28.
KINDS: list[tuple[str, dict[str, Any] | None]] = [
    (server, capabilities) for server in ("web", "local") for capabilities in ({}, {"elicitation": {}}, None)
] * 2
# So many and so slow that the calls under way at a worker's death are far more than the failures that open a circuit.
SLOW: list[tuple[str, dict[str, Any] | None]] = [("slow", kind) for kind in ({}, {"elicitation": {}}, None)] * 8
SLOW_S = 0.2
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
numbers = itertools.count()


class StatelessClient:
    """A client of 2026-07-28."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def request(self, method: str, params: dict[str, Any], request_id: str) -> Any:
        """POST a request, and return the response."""
        fields = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
            "Mcp-Name": params["name"],
        }
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {**params, "_meta": META}}
        async with self._http.post(self._url, json=request, headers=fields) as response:
            return await response.json()


class Load:
    """Clients that call, and what became of their calls.

    Parameters
    ----------
    served
        The service.
    kinds
        The clients: see ``KINDS``.
    keeps
        Whether each keeps its connection; otherwise each call is made on a new one, and so at any worker.
    """

    def __init__(
        self, served: ServedWorkers, kinds: list[tuple[str, dict[str, Any] | None]] = KINDS, *, keeps: bool = True
    ) -> None:
        self._served = served
        self._kinds = kinds
        self._keeps = keeps
        self.began: dict[str, float] = {}
        self._waiting: dict[int, asyncio.Event] = {}
        self.answered: list[str] = []
        self.failed: dict[str, str] = {}

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return len(self.answered) + len(self.failed)

    async def run(self) -> None:
        """Let all clients make their calls."""
        async with asyncio.TaskGroup() as clients:
            for server, capabilities in self._kinds:
                clients.create_task(self._client(server, capabilities))

    async def until(self, count: int) -> None:
        """Wait until so many calls have ended."""
        if self.ended < count:
            await self._waiting.setdefault(count, asyncio.Event()).wait()

    async def _client(self, server: str, capabilities: dict[str, Any] | None) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=not self._keeps)) as http:
            url = self._served.url(server)
            client = (
                StatelessClient(http, url)
                if capabilities is None
                else await SessionClient(http, url).begin(capabilities)
            )
            for _ in range(CALLS if self._keeps else CALLS // 3):
                await self._call(client, f"call{next(numbers)}")
                for count, event in self._waiting.items():
                    if self.ended >= count:
                        event.set()

    async def _call(self, client: SessionClient | StatelessClient, name: str) -> None:
        self.began[name] = time.monotonic()
        try:
            answer = await client.request("tools/call", {"name": "note", "arguments": {"call": name}}, name)
        except aiohttp.ClientError as error:
            # It was under way on the worker that was killed.
            self.failed[name] = type(error).__name__
            return
        assert answer["id"] == name, answer
        if "error" in answer:
            assert answer["error"]["data"]["delivery"] in ("unknown", "not_sent", "rejected"), answer
            self.failed[name] = answer["error"]["data"]["delivery"]
            return
        assert answer["result"]["content"][0]["text"] == name
        self.answered.append(name)


class Service:
    """The service, its servers, and what they have executed."""

    def __init__(self, directory: Path, web: HttpServerProcess, served: ServedWorkers) -> None:
        self.directory = directory
        self.web = web
        self.served = served

    def executed(self) -> Counter[str]:
        """Return how often each call was executed."""
        ledgers = ("web", "local", "slow")
        return Counter(entry.call for name in ledgers for entry in read_ledger(self.directory / name))

    def check(self, load: Load, most_failed: int) -> None:
        """Check that no answer was lost, and no call executed twice."""
        done = self.executed()
        assert max(done.values()) == 1
        assert set(load.answered) <= set(done)
        assert load.ended == len(load.began)
        assert len(load.failed) <= most_failed, load.failed
        assert not {name for name, why in load.failed.items() if why in ("not_sent", "rejected")} & set(done)


def config_of(directory: Path, web: HttpServerProcess, **more: Any) -> dict[str, Any]:
    local = noting_stdio(directory / "local").config()
    slow = noting_stdio(directory / "slow", seconds=SLOW_S).config()
    web_server = {"url": web.url, "breaker": {"min_calls": 10_000}}
    return {"servers": {"web": web_server, "local": local, "slow": slow, **more}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    with noting_http(directory / "web") as web, ServedWorkers(directory, config_of(directory, web)) as served:
        yield Service(directory, web, served)


def test_the_parent_has_not_loaded_what_serves(service: Service) -> None:
    loaded = [Path(f"/proc/{pid}/maps").read_text() for pid in (service.served.pid, *service.served.pids())]
    assert ["mcp_manager/_core/serving" in maps for maps in loaded] == [False, True, True]


async def test_calls_that_begin_after_the_death_of_a_programs_worker_are_answered(service: Service) -> None:
    served, load, before = service.served, Load(service.served, SLOW, keeps=False), service.served.pids()
    running = asyncio.create_task(load.run())
    await load.until(2 * len(SLOW))
    dead_s = kill_owner(service.directory / "slow")
    async with asyncio.timeout(20):
        await running
    later = {name for name, began_s in load.began.items() if began_s > dead_s}
    assert len(later) >= len(SLOW)
    assert {name: why for name, why in load.failed.items() if name in later} == {}
    # Those under way at its death.
    assert load.failed
    service.check(load, len(SLOW))
    await served.restarted(before)


async def test_workers_are_killed_under_load(service: Service) -> None:
    served, load = service.served, Load(service.served)
    running = asyncio.create_task(load.run())
    # One of them runs the program.
    for part in (3, 2):
        await load.until(len(KINDS) * CALLS // part)
        # The oldest one: the other was started when its predecessor was killed.
        before = served.pids()
        os.kill(before[0], signal.SIGKILL)
        await served.restarted(before)
    await running
    # Each client has one call at a time.
    service.check(load, 2 * len(KINDS))
    assert load.failed


async def test_a_server_is_killed_under_load(service: Service) -> None:
    load = Load(service.served)
    running = asyncio.create_task(load.run())
    await load.until(len(KINDS) * CALLS // 3)
    await asyncio.to_thread(service.web.restart)
    await running
    # Calls fail until the server is there again.
    service.check(load, len(KINDS) * CALLS // 2)
    await answers_again(service.served.url("web"))


async def test_clients_are_killed_under_load(service: Service) -> None:
    load, doomed = Load(service.served), Load(service.served)
    running = asyncio.create_task(load.run())
    ending = asyncio.create_task(doomed.run())
    await load.until(len(KINDS) * CALLS // 3)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await running
    assert load.failed == {}
    service.check(load, 0)


async def test_a_reload_deploys_once_what_all_workers_serve(service: Service) -> None:
    served, ledger = service.served, service.directory / "new"
    served.write(config_of(service.directory, service.web, new=noting_stdio(ledger).config()))
    served.reload()
    await until(lambda: served.log.count(": applied: ") == 2)
    for _ in range(8):
        # Each on a new connection, and so on any worker.
        async with aiohttp.ClientSession() as http:
            client = await SessionClient(http, served.url("new")).begin()
            name = f"call{next(numbers)}"
            answer = await client.request("tools/call", {"name": "note", "arguments": {"call": name}})
            assert "result" in answer, answer
    assert len({entry.pid for entry in read_ledger(ledger)}) == 1
    served.write(config_of(service.directory, service.web))
    served.reload()
    await until(lambda: served.log.count(": applied: ") == 4)
    for _ in range(4):
        async with aiohttp.ClientSession() as http:
            assert (await SessionClient(http, served.url("new")).post("initialize", {})).status == 404


def test_the_parent_is_killed(service: Service) -> None:
    service.served.kill()


def kill_owner(ledger: Path) -> float:
    """Kill the worker that runs the program with a ledger, and return when it had ended (of the monotonic clock)."""
    program = read_ledger(ledger)[-1].pid
    # The name of a command may have spaces; the second field after it is the parent.
    owner = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    end = os.pidfd_open(owner)
    try:
        os.kill(owner, signal.SIGKILL)
        assert select.select([end], [], [], 20)[0]
    finally:
        os.close(end)
    return time.monotonic()


async def answers_again(url: str) -> None:
    """Wait until all workers have connected to a server again, which may take as long as they wait after failures."""
    answered = 0
    async with asyncio.timeout(20):
        while answered < 8:
            # Each on a new connection, and so on any worker.
            async with aiohttp.ClientSession() as http:
                params = {"name": "note", "arguments": {"call": f"call{next(numbers)}"}}
                answer = await StatelessClient(http, url).request("tools/call", params, "again")
            answered = answered + 1 if "result" in answer else 0
            if not answered:
                await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes write down, which tells nobody."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
