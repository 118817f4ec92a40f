"""A host that is killed leaves no server behind, whatever the server does at the end of its input."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.calls import CALM, eventually
from support.children import is_gone, running
from support.processes import scripted_stdio

from mcp_manager.transports.stdio import orphan_guard
from mcp_manager.transports.stdio.descendants import host_token

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(os, "pidfd_open"), reason="the system does not tell of a process's end"
)

# Whoever is left is killed by its id at the end of the test.
HOST = """
import json, sys, time
from mcp_manager import PyMcpManager
manager = PyMcpManager()
manager.start()
manager.deploy_server("a", sys.argv[1])
print("ready", flush=True)
time.sleep(600)
"""
# A launcher as npx and uvx are: it waits for what it has started, which hears nothing of its end.
LAUNCHER = (
    "import os, subprocess, sys; open({pids!r}, 'a').write(str(os.getpid()) + chr(10)); subprocess.run(sys.argv[1:])"
)
WAIT_S = 30.0


class Host:
    """A process with one server."""

    def __init__(self, pids: Path, config: dict[str, Any]) -> None:
        self._pids = pids
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", HOST, json.dumps({**CALM, "connect_timeout_s": WAIT_S, **config})],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    @property
    def servers(self) -> list[int]:
        return [int(line) for line in self._pids.read_text().split()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def host(pids: Path, config: dict[str, Any]) -> Iterator[Host]:
    subject = Host(pids, config)
    try:
        yield subject
    finally:
        subject.kill()
        assert subject.process.stdout is not None
        subject.process.stdout.close()
        for pid in subject.servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("launched", [False, True])
@pytest.mark.parametrize("deaf", [False, True])
async def test_nothing_outlives_a_host_that_is_killed(tmp_path: Path, deaf: bool, launched: bool) -> None:
    pids = tmp_path / "pids"
    start = [{"do": "note_start", "log": str(pids)}, *([{"do": "ignore_end"}] if deaf else [])]
    config = scripted_stdio({"start": start}).config()
    if launched:
        code = LAUNCHER.format(pids=str(pids))
        config = {"command": sys.executable, "args": ["-c", code, config["command"], *config["args"]]}  # type: ignore[misc]
    with host(pids, config) as subject:
        assert len(subject.servers) == 1 + launched
        assert not any(is_gone(pid) for pid in subject.servers)
        subject.kill()
        await eventually(lambda: all(is_gone(pid) for pid in subject.servers), "the end of all of it")


def guards() -> list[psutil.Process]:
    """Whoever waits for the end of this process."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-1:] == [host_token()]:
                found.append(process)
    return found


@pytest.mark.both_loops
async def test_there_is_one_guard_for_all_children_and_it_ends_with_the_last() -> None:
    assert guards() == []
    async with running("import time; time.sleep(3600)") as one:
        async with running("import time; time.sleep(3600)"):
            await eventually(lambda: len(guards()) == 1, "the guard")
            [guard] = guards()
            # Whoever counts the children of this process finds servers alone.
            assert guard not in psutil.Process().children()
        assert guards() == [guard]
        assert one.process.is_running()
    await eventually(lambda: guards() == [], "its end")


async def test_a_guard_hears_no_signal_of_a_terminal() -> None:
    async with running("import time; time.sleep(3600)"):
        await eventually(lambda: len(guards()) == 1, "the guard")
        [guard] = guards()
        assert os.getsid(guard.pid) != os.getsid(0)


async def test_without_a_shell_or_as_the_first_process_the_guard_is_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_guard, "_SHELL", "/no/such/shell")
    async with running("import time; time.sleep(3600)"):
        await eventually(lambda: len(guards()) == 1, "the guard")
        assert guards()[0] in psutil.Process().children()
    assert guards() == []


def test_a_host_goes_on_where_no_guard_can_be_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(orphan_guard, "_guard", orphan_guard._Guard())
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setattr(orphan_guard, "_SHELL", "/no/such/shell")
    with caplog.at_level("INFO"):
        orphan_guard.watch()
        orphan_guard.watch()
    assert orphan_guard._guard.orders == -1
    [record] = caplog.records
    assert "may keep running" in record.message


def holds_in_a_copy(number: int) -> bool:
    """Tell whether a forked copy of this process has a descriptor that this one has."""
    pid = os.fork()
    if pid == 0:
        try:
            os.fstat(number)
        except OSError:
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


async def test_a_forked_copy_keeps_no_hold_of_the_guard() -> None:
    async with running("import time; time.sleep(3600)"):
        assert not holds_in_a_copy(orphan_guard._guard.orders)
        assert orphan_guard._guard.orders >= 0
    await eventually(lambda: guards() == [], "its end")
