"""The checks of what a test leaves behind, where they are new: that objects which are still held are told."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support import kept
from support.leaks import Snapshot

from mcp_manager._core.http_message import Exchange
from mcp_manager.errors import ConnectError
from mcp_manager.testing import leaks


def test_what_is_held_is_told_with_its_holder() -> None:
    before = Snapshot()
    held = [Exchange(b"{}", 1, 0), ConnectError("no")]
    exchange, error = sorted(each.split(":")[0] for each in before.new_objects())
    assert (exchange, error) == ("1 more of ConnectError can be reached", "1 more of Exchange can be reached")
    held.clear()
    assert before.new_objects() == []


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_child_is_told_and_ended(in_thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_GRACE_S", 0.3)
    before = Snapshot()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with ThreadPoolExecutor(1) as executor:
        start = partial(subprocess.Popen[bytes], command)
        child = executor.submit(start).result() if in_thread else start()
        (told,) = before.new_children()
    assert told.startswith(f"child process {child.pid} is sleeping: {sys.executable}")
    assert child.wait(0) is not None
    assert before.new_children() == []


def test_a_cycle_is_not_held() -> None:
    before = Snapshot()
    exchange = Exchange(b"{}", 1, 0)
    exchange.wire = exchange
    del exchange
    assert before.new_objects() == []


def test_a_cycle_of_the_package_is_described() -> None:
    gc.collect()
    exchange = Exchange(b"{}", 1, 0)
    exchange.wire = exchange
    del exchange
    assert kept.cycles() == ["Exchange"]
    assert kept.cycles() == []


def test_marked_text_is_found_where_the_collector_does_not_look() -> None:
    error = ConnectError("no")
    error.hint = f"{kept.MARK}0"
    assert kept.marks() != []
    del error
    gc.collect()
    assert kept.marks() == []
