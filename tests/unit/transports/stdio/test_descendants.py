"""What a child leaves behind outside its process group ends with it, and nobody else does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from types import ModuleType

import psutil
import pytest
from support.calls import eventually
from support.children import GRANDCHILD, is_gone, running

from mcp_manager.transports.stdio import child as child_module
from mcp_manager.transports.stdio import descendants, marked
from mcp_manager.transports.stdio.child import Child, child_environment
from mcp_manager.transports.stdio.descendants import kill_marked_soon, new_mark
from mcp_manager.transports.stdio.marked import MARK, kill_marked

pytestmark = [
    pytest.mark.both_loops,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc to find them by"),
]

# Orphans a process that leads a session of its own, before anything is told; the way daemons are made.
DAEMON = """
    import os, signal, sys, time
    there, here = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while os.getppid() == os.getsid(0):
                time.sleep(0.001)
            os.write(here, b"%d\\n" % os.getpid())
            time.sleep(3600)
        os._exit(0)
    os.wait()
    os.write(1, os.read(there, 100))
    {then}
"""
LEAVE = "os._exit(2)"
WAIT_FOR_THE_END = "sys.stdin.read()"
STAY = "time.sleep(3600)"

SLEEPER = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(3600)"]


@contextlib.contextmanager
def bystander(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that is nobody's child here."""
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("code", [GRANDCHILD.replace("{session}", "True"), DAEMON], ids=["own session", "daemon"])
async def test_who_left_the_group_ends_with_a_program_that_crashed(code: str) -> None:
    async with running(code.format(then=LEAVE)) as subject:
        grandchild = int(await subject.line())
        assert os.getsid(grandchild) != subject.child.pid
        assert await subject.end() == 2
        await eventually(lambda: is_gone(grandchild), "the end of who left the group")


@pytest.mark.parametrize("code", [GRANDCHILD.replace("{session}", "True"), DAEMON], ids=["own session", "daemon"])
@pytest.mark.parametrize(("then", "grace_s"), [(WAIT_FOR_THE_END, 30.0), (STAY, 0.0)], ids=["in order", "by force"])
async def test_who_left_the_group_ends_with_a_program_that_is_stopped(code: str, then: str, grace_s: float) -> None:
    async with running(code.format(then=then)) as subject:
        grandchild = int(await subject.line())
        await subject.child.aclose(grace_s)
        await eventually(lambda: is_gone(grandchild), "the end of who left the group")


async def test_who_left_the_group_ends_without_the_loop() -> None:
    async with running(DAEMON.format(then=STAY)) as subject:
        grandchild = int(await subject.line())
        subject.child.kill_now()
        await eventually(lambda: is_gone(grandchild), "the end of who left the group")
        assert await subject.end() == -signal.SIGKILL


async def test_who_cleared_its_environment_is_on_its_own_and_delays_nobody() -> None:
    code = GRANDCHILD.replace("start_new_session={session}", "start_new_session=True, env={{}}")
    async with running(code.format(then=LEAVE)) as subject:
        grandchild = int(await subject.line())
        try:
            assert await subject.end() == 2
            assert not is_gone(grandchild)
        finally:
            os.kill(grandchild, signal.SIGKILL)


async def test_a_neighbour_and_its_descendants_live_on() -> None:
    async with running(DAEMON.format(then=STAY)) as neighbour:
        grandchild = int(await neighbour.line())
        async with running(DAEMON.format(then=LEAVE)) as subject:
            await subject.end()
        assert not is_gone(grandchild)
        assert neighbour.process.is_running()
        assert not neighbour.codes


async def test_a_swarm_is_ended_though_it_grows_meanwhile() -> None:
    code = """
        import os, sys, time
        if os.fork() == 0:
            os.setsid()
            os.write(1, b"started\\n")
            while True:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(3600)
                    os._exit(0)
                time.sleep(0.0005)
        time.sleep(3600)
    """
    async with running(code) as subject:
        await subject.line()
        token = subject.child._token.encode()
        await subject.child.aclose(0.0)

    def left() -> list[int]:
        return [pid for pid in psutil.pids() if marked._is_marked(pid, {token})]

    await eventually(lambda: not left(), "the end of all of them")


async def test_many_ends_are_looked_after_together(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[set[str]] = []
    monkeypatch.setattr(descendants, "kill_marked", lambda tokens: looks.append(set(tokens)))
    done: list[str] = []
    all_done = asyncio.Event()
    tokens = [str(number) for number in range(20)]
    for token in tokens:
        kill_marked_soon(token, lambda token=token: (done.append(token), len(done) == 20 and all_done.set()))  # type: ignore[misc]
    await asyncio.wait_for(all_done.wait(), 15)
    assert (looks, done) == ([set(tokens)], tokens)


async def test_whoever_waits_for_a_look_that_fails_is_told_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tokens: Collection[str]) -> None:
        raise MemoryError

    monkeypatch.setattr(descendants, "kill_marked", fail)
    told = asyncio.Event()
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    try:
        kill_marked_soon("any", told.set)
        await asyncio.wait_for(told.wait(), 15)
    finally:
        loop.set_exception_handler(before)
    assert [type(each) for each in reported] == [MemoryError]


async def test_the_end_is_told_after_the_descendants_were_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Callable[[], None]] = []
    monkeypatch.setattr(child_module, "kill_marked_soon", lambda token, then: held.append(then))
    code = GRANDCHILD.replace("start_new_session={session}", "start_new_session=True, env={{}}")
    async with running(code.format(then=LEAVE)) as subject:
        grandchild = int(await subject.line())
        await eventually(lambda: bool(held), "the exit")
        os.kill(grandchild, signal.SIGKILL)
        await eventually(lambda: not subject.child._outputs, "the end of the output")
        assert not subject.codes
        held.pop()()
        assert await subject.end() == 2


@pytest.mark.parametrize("value", ["{token}x", "x{token}", "other", ""])
async def test_another_mark_is_no_mark(value: str) -> None:
    token, _ = new_mark()
    with bystander({"X": f"{MARK}={token}", MARK: value.format(token=token)}) as process:
        kill_marked({token})
        assert process.poll() is None


@pytest.mark.parametrize("blanks", [1, 2, 4])
async def test_who_is_just_becoming_another_program_is_found(blanks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    token, mark = new_mark()
    with bystander({MARK: mark}) as process:
        look_blank(monkeypatch, process.pid, blanks)
        kill_marked({token})
        assert process.wait(15) == -signal.SIGKILL


async def test_who_shows_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    token, mark = new_mark()
    with bystander({MARK: mark}) as process:
        look_blank(monkeypatch, process.pid, sys.maxsize)
        kill_marked({token})
        assert process.poll() is None


def look_blank(monkeypatch: pytest.MonkeyPatch, pid: int, times: int) -> None:
    """Have a process show neither environment nor arguments, as in the midst of an exec."""
    read, looks = marked._read, 0

    def look(path: str) -> bytes:
        nonlocal looks
        is_blank = path.startswith(f"/proc/{pid}/") and looks < times
        looks += is_blank
        return b"" if is_blank else read(path)

    monkeypatch.setattr(marked, "_read", look)


async def test_what_a_descendant_started_with_this_package_is_a_descendant_too(monkeypatch: pytest.MonkeyPatch) -> None:
    outer, mark = new_mark()
    monkeypatch.setenv(MARK, mark)
    code = "import os; print(os.environ['MCP_MANAGER_CHILD'], flush=True); import time; time.sleep(3600)"
    async with running(code) as subject:
        given = await subject.line()
        assert given.startswith(f"{outer},")
        kill_marked({"unknown"})
        assert not subject.codes
        kill_marked({outer})
        assert await subject.end() == -signal.SIGKILL


async def test_a_configured_mark_does_not_count() -> None:
    child = Child([], child_environment({MARK: "mine"}), None, on_stdout=print, on_end=print)
    assert child._environment[MARK].endswith(child._token)


@pytest.mark.parametrize(("module", "name"), [(signal, "pidfd_send_signal"), (os, "pidfd_open")])
async def test_without_descriptors_of_processes_nobody_is_signalled_by_number(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, name)
    token, mark = new_mark()
    with bystander({MARK: mark}) as process:
        kill_marked({token})
        assert process.poll() is None
        monkeypatch.undo()
        kill_marked({token})
        assert process.wait(15) == -signal.SIGKILL
