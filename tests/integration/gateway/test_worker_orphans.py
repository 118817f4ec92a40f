"""Workers never outlive their parent, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import PROGRAMS

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes that are no children")


@pytest.mark.parametrize("arguments", [(), ("--stubborn",)], ids=["orderly", "stubborn"])
def test_workers_end_when_their_parent_is_killed(arguments: tuple[str, ...]) -> None:
    parent = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "hello_parent.py"), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        directory, *pids = parent.stdout.readline().split()
        ends = [os.pidfd_open(int(pid)) for pid in pids]
        try:
            assert len(ends) == 2
            parent.kill()
            parent.wait()
            for end in ends:
                assert select.select([end], [], [], 20)[0], "a worker is still there"
        finally:
            for end in ends:
                os.close(end)
    assert not Path(directory).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_ends_all_in_order(number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, str(PROGRAMS / "hello_parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        directory, *pids = parent.stdout.readline().split()
        parent.send_signal(number)
        assert parent.wait(20) == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert not Path(directory).exists()


def test_a_second_signal_kills() -> None:
    parent = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "hello_parent.py"), "--stubborn"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        parent.stdout.readline()
        parent.send_signal(signal.SIGTERM)
        # Two of the same signal at once are one.
        parent.send_signal(signal.SIGINT)
        assert parent.wait(20) == 1
