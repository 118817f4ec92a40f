"""``mcp-manager serve`` under systemd: what it says of its start, of reloads, of its event loop and of its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.systemd_socket import SystemdSocket

from mcp_manager.gateway.systemd import Systemd

_WAIT_S = 30.0
_FLEET = """
[servers.calculator]
command = "true"
connect = "lazy"
"""
_ANOTHER = _FLEET.replace("calculator", "another")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[SystemdSocket]:
    opened = SystemdSocket(tmp_path / "notify")
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_tells_systemd_what_it_does(systemd: SystemdSocket, tmp_path: Path, workers: int) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(_FLEET, encoding="utf-8")
    command = [sys.executable, "-P", "-m", "mcp_manager", "serve", "--listen", "127.0.0.1:0", "--quiet", str(fleet)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        env={**os.environ, "NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "100000"},
        start_new_session=True,
    )
    try:
        ready, status = systemd.next()
        assert ready == "READY=1"
        told = "serving 1 server at http://127.0.0.1:" if workers == 1 else "2 of 2 workers serve"
        assert status.startswith(f"STATUS={told}")
        assert systemd.next(but="") == ["WATCHDOG=1"] == systemd.next(but="")

        for text in (_FLEET + _ANOTHER, "[servers.calculator]\n"):
            fleet.write_text(text, encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            assert systemd.next()[0] == "RELOADING=1"
            ready, status = systemd.next()
            assert ready == "READY=1"
        # The second file is wrong, and changed nothing.
        assert workers > 1 or status.startswith("STATUS=serving 2 servers")

        process.terminate()
        assert systemd.next() == ["STOPPING=1"]
        assert process.wait(_WAIT_S) == 0
    finally:
        process.kill()
        process.wait()


async def test_a_loop_that_ended_its_service_reports_nothing_more(systemd: SystemdSocket) -> None:
    service = Systemd({"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "20000"})
    service.reloading()
    service.reloaded("too early")
    assert systemd.is_silent()
    service.ready("serving")
    assert await asyncio.to_thread(systemd.next) == ["READY=1", "STATUS=serving"]
    service.stopping()
    service.reloaded("too late")
    assert await asyncio.to_thread(systemd.next) == ["STOPPING=1"]
    service.close()
    while not systemd.is_silent():
        assert systemd.told[-1] == "WATCHDOG=1"
    service.close()


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
async def test_it_reports_the_loop_only_if_it_is_asked(systemd: SystemdSocket, more: dict[str, str]) -> None:
    asked = {"WATCHDOG_USEC": "1"} if "WATCHDOG_PID" in more else {}
    service = Systemd({"NOTIFY_SOCKET": str(systemd.path), **asked, **more})
    service.ready("serving")
    assert systemd.next(but="") == ["READY=1", "STATUS=serving"]
    assert systemd.is_silent()
    # Nobody listens: that ends no service.
    Systemd({}).ready("serving")


async def test_a_systemd_that_does_not_listen_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("serving")
    assert "could not send READY=1 to systemd" in caplog.text
    Systemd({"NOTIFY_SOCKET": "@mcp-manager-nobody"}).stopping()
    assert "could not send STOPPING=1 to systemd" in caplog.text
