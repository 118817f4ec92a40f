"""The checks of what a test leaves behind, where they are new: that objects which are still held are told."""

from __future__ import annotations

import gc

from support import kept
from support.leaks import Snapshot

from mcp_manager._core.http_message import Exchange
from mcp_manager.errors import ConnectError


def test_what_is_held_is_told_with_its_holder() -> None:
    before = Snapshot()
    held = [Exchange(b"{}", 1, 0), ConnectError("no")]
    exchange, error = sorted(each.split(":")[0] for each in before.new_objects())
    assert (exchange, error) == ("1 more of ConnectError can be reached", "1 more of Exchange can be reached")
    held.clear()
    assert before.new_objects() == []


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
