"""The recipe in ``examples/systemd``: the unit as systemd reads it, and its program as systemd runs it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.deployed_service import service_program
from support.recipes import Program, folder_of
from support.systemd_socket import SystemdSocket
from support.unit_files import UnitFile, analyze

MORE_CHECKS = 0.3
"""How much newer versions of ``systemd-analyze`` may add to the exposure by checks that are new."""
_WAIT_S = 30.0
_ANOTHER = """
[servers.another]
command = "${PYTHON}"
args = ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]
"""


@pytest.fixture
def folder() -> Path:
    return folder_of("systemd")


def unit_of(folder: Path) -> UnitFile:
    return UnitFile(folder / "mcp-fleet.service")


def variables(folder: Path) -> dict[str, str]:
    """What is in the file of variables."""
    lines = (folder / "mcp-fleet.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[SystemdSocket]:
    systemd = SystemdSocket(tmp_path / "notify")
    try:
        yield systemd
    finally:
        systemd.close()


def started(
    folder: Path, systemd: SystemdSocket, fleet: Path, **more: str
) -> contextlib.AbstractContextManager[Program]:
    """Start what ``ExecStart`` says, with the variables that the unit gives it."""
    program, script = shlex.split(unit_of(folder)["ExecStart"])
    assert (Path(program).name, Path(script).name) == ("python", "service.py")
    return service_program(fleet, **variables(folder), NOTIFY_SOCKET=str(systemd.path), **more)


def reload(folder: Path, program: Program) -> None:
    """Do what ``ExecReload`` says."""
    command = [
        part.replace("$MAINPID", str(program.process.pid)) for part in shlex.split(unit_of(folder)["ExecReload"])
    ]
    subprocess.run(command, timeout=30, check=True)


@pytest.fixture
def fleet(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(folder / "fleet.toml", tmp_path))


def test_systemd_accepts_the_unit(folder: Path, tmp_path: Path) -> None:
    # The programs that the README installs are not on this machine.
    text = unit_of(folder).path.read_text(encoding="utf-8").replace("/opt/mcp-fleet/venv/bin/python", sys.executable)
    unit = tmp_path / "mcp-fleet.service"
    unit.write_text(text, encoding="utf-8")
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_as_hardened_as_the_readme_says(folder: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(unit_of(folder).path))
    found = re.search(r"exposure level for mcp-fleet.service: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    stated = re.search(r"exposure of ([\d.]+) in", (folder / "README.md").read_text(encoding="utf-8"))
    assert stated is not None
    assert float(found[1]) <= float(stated[1]) + MORE_CHECKS, done.stdout


def test_the_time_to_stop_is_enough_to_drain(folder: Path) -> None:
    unit, given = unit_of(folder), variables(folder)
    end_of_servers_s = 10  # manager.shutdown_timeout_s
    assert float(unit["TimeoutStopSec"]) > float(given["LINGER_S"]) + float(given["DRAIN_S"]) + end_of_servers_s
    assert float(unit["TimeoutStartSec"]) > float(given["START_S"])


def test_the_program_tells_systemd_what_it_does(folder: Path, systemd: SystemdSocket, fleet: Path) -> None:
    with started(folder, systemd, fleet, WATCHDOG_USEC="100000") as program:
        # Nothing but its life until the fleet is ready.
        assert systemd.next() == ["READY=1", "STATUS=1 of 1 servers serve"]
        assert systemd.told[0] == "WATCHDOG=1"
        assert systemd.next(but="") == ["WATCHDOG=1", "STATUS=1 of 1 servers serve"]

        fleet.write_text(fleet.read_text(encoding="utf-8") + _ANOTHER, encoding="utf-8")
        reload(folder, program)
        [reloading, moment] = systemd.next()
        assert reloading == "RELOADING=1" and re.fullmatch(r"MONOTONIC_USEC=\d+", moment)
        assert systemd.next() == ["READY=1", "STATUS=2 of 2 servers serve"]

        fleet.write_text("[servers.calculator]\n", encoding="utf-8")
        reload(folder, program)
        assert systemd.next()[0] == "RELOADING=1"
        assert systemd.next() == ["READY=1", "STATUS=2 of 2 servers serve"]
        program.wait_for("the fleet stays as it is: .*calculator.*url")

        assert len(psutil.Process(program.process.pid).children()) >= 3
        assert program.end(signal.SIGTERM) == 0
        assert systemd.next() == ["STOPPING=1", "STATUS=stopping"]


def test_it_is_not_ready_before_its_servers_are(
    folder: Path, systemd: SystemdSocket, fleet: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # The only server starts once somebody opens the gate.
    fleet.write_text(
        "[servers.slow]\n"
        'command = "sh"\n'
        f"args = ['-c', 'read line < {gate}; exec \"$0\" -P -m mcp_manager.cli.demo_servers.stdio_server', "
        "'${PYTHON}']\n"
        'inherit_env = ["PYTHONPATH"]\n',
        encoding="utf-8",
    )
    with started(folder, systemd, fleet) as program:
        program.wait_for("listening on")
        with gate.open("w", encoding="utf-8") as opened:
            assert systemd.is_silent()
            opened.write("open\n")
        assert systemd.next()[0] == "READY=1"
        assert program.end(signal.SIGTERM) == 0


def test_an_invalid_file_ends_it_with_the_status_that_is_not_restarted(
    folder: Path, systemd: SystemdSocket, fleet: Path
) -> None:
    fleet.write_text("[servers.calculator]\n", encoding="utf-8")
    with started(folder, systemd, fleet) as program:
        assert str(program.process.wait(_WAIT_S)) == unit_of(folder)["RestartPreventExitStatus"]
    assert re.search("CRITICAL.*calculator", program.output)
    assert systemd.is_silent()
