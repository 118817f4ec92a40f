"""The parent process: workers that start together, are restarted when they die, and end with their parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import PROGRAMS

from mcp_manager.gateway.workers.parent import Parent, WorkersConfig
from mcp_manager.runtime.background import background_task


class Service:
    """A parent with workers of the program ``hello_worker.py``, on the loop of the test."""

    def __init__(
        self,
        tmp_path: Path,
        *arguments: str,
        count: int = 2,
        address: tuple[str, int] | socket.socket = ("127.0.0.1", 0),
        drain_timeout_s: float = 30.0,
    ) -> None:
        self.log = tmp_path / "log"
        self.log.touch()
        command = [sys.executable, str(PROGRAMS / "hello_worker.py"), "--log", str(self.log), *arguments]
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        config = WorkersConfig(command, count, address, drain_timeout_s=drain_timeout_s)
        self.parent = Parent(config, self.ready.set_result)
        self.running = background_task(self.parent.run(), "run the parent")

    async def answer(self) -> dict[str, int]:
        """Return what one worker says of itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ready.result())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        said: dict[str, int] = json.loads(reply.partition(b"\r\n\r\n")[2])
        return said

    async def answers_of(self, count: int) -> dict[int, int]:
        """Return the process ids by number, once so many workers have answered."""
        found: dict[int, int] = {}
        while len(found) < count:
            said = await self.answer()
            found[said["worker"]] = said["pid"]
        return found

    def lines(self, what: str) -> list[str]:
        """Return what the workers have noted of one kind."""
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{what} ")]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what workers note in their file, which tells nobody."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def stopped(self) -> int:
        self.parent.stop()
        return await self.running


@pytest.mark.both_loops
async def test_all_workers_serve_one_address_and_end_in_order(tmp_path: Path) -> None:
    service = Service(tmp_path, count=2)
    await service.ready
    assert set(await service.answers_of(2)) == {0, 1}
    assert await service.stopped() == 0
    assert len(service.lines("end")) == 2
    with pytest.raises(ConnectionRefusedError):
        await service.answer()


@pytest.mark.both_loops
async def test_a_worker_that_is_killed_is_started_again_and_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_manager.gateway.workers.parent._FIRST_DELAY_S", 0.1)
    service = Service(tmp_path, count=2)
    await service.ready
    before = await service.answers_of(2)
    # Its successor is started at once, the next one after a delay.
    for _ in range(2):
        os.kill(before[1], signal.SIGKILL)
        # Those that the kernel gives to the dead worker wait for its successor.
        said = await asyncio.gather(*(service.answer() for _ in range(40)))
        after = {each["worker"]: each["pid"] for each in said if each["pid"] != before[each["worker"]]}
        assert set(after) == {1}
        assert before[0] in {each["pid"] for each in said}
        before.update(after)
    assert await service.stopped() == 0


async def test_while_a_worker_dies_again_and_again_the_others_serve_and_then_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_manager.gateway.workers.parent._FIRST_DELAY_S", 0.1)
    service = Service(tmp_path, count=2)
    await service.ready
    for count in (3, 4, 5):
        os.kill((await service.answers_of(2))[1], signal.SIGKILL)
        await service.until(lambda count=count: len(service.lines("start")) == count)  # type: ignore[misc]
    found = await service.answers_of(2)
    assert service.parent._listeners is not None
    reader, writer = await asyncio.open_unix_connection(f"{service.parent._listeners.directory}/1.sock")
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert str(found[1]).encode() in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert await service.stopped() == 0


async def test_a_worker_that_waits_for_its_start_is_not_started_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mcp_manager.gateway.workers.parent._FIRST_DELAY_S", 0.1)
    monkeypatch.setattr("mcp_manager.gateway.workers.parent._AFTER_DRAIN_S", 1.0)
    # The other worker takes its time to end.
    service = Service(tmp_path, "--stubborn", count=2, drain_timeout_s=0.0)
    await service.ready
    listeners = service.parent._listeners
    assert listeners is not None
    for count in (3, 4, 5):
        os.kill((await service.answers_of(2))[1], signal.SIGKILL)
        if count < 5:
            await service.until(lambda count=count: len(service.lines("start")) == count)  # type: ignore[misc]
    await service.until(lambda: listeners.siblings[1].fileno() < 0)
    assert await service.stopped() == 1
    assert len(service.lines("start")) == 4
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_configuration_that_is_wrong_ends_the_service_with_the_status_of_the_worker(tmp_path: Path) -> None:
    service = Service(tmp_path, "--status", "2")
    assert await service.running == 2
    assert not service.ready.done()


async def test_a_worker_that_ignores_the_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_manager.gateway.workers.parent._AFTER_DRAIN_S", 0.1)
    service = Service(tmp_path, "--stubborn", count=1, drain_timeout_s=0.0)
    await service.ready
    assert await service.stopped() == 1


async def test_a_second_request_to_end_kills_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path, "--stubborn", count=2)
    await service.ready
    service.parent.stop()
    assert await service.stopped() == 1


async def test_workers_reload_one_after_another_and_stop_at_a_problem(tmp_path: Path) -> None:
    service = Service(tmp_path, "--drain", "0.25", count=2)
    await service.ready
    service.parent.reload()
    await service.until(lambda: len(service.lines("together")) == 4)
    assert [line.split()[1] for line in service.lines("reload")] == ["0", "1"]
    # The parent waits for the end of workers as long as they do for that of calls.
    assert service.parent._drain_timeout_s == 0.25
    assert await service.stopped() == 0


async def test_a_reload_ends_at_the_first_worker_with_a_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path, "--problem", "a mistake", count=2)
    await service.ready
    service.parent.reload()
    await service.until(lambda: "a mistake" in caplog.text)
    assert [line.split()[1] for line in service.lines("reload")] == ["0"]
    assert await service.stopped() == 0


@pytest.mark.both_loops
async def test_a_cancelled_parent_leaves_no_process(tmp_path: Path) -> None:
    service = Service(tmp_path, count=2)
    await service.ready
    pids = service.parent.pids()
    service.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await service.running
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_address_of_another_instance_is_refused(tmp_path: Path) -> None:
    service = Service(tmp_path, count=1)
    port = await service.ready
    second = Parent(WorkersConfig(["true"], 2, ("127.0.0.1", port)))
    with pytest.raises(OSError, match="in use"):
        await second.run()
    assert await service.stopped() == 0


async def test_an_address_that_is_open_already_is_shared_by_all_workers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = Service(tmp_path, address=listener)
        assert await service.ready == listener.getsockname()[1]
        await service.answers_of(2)
        assert await service.stopped() == 0
