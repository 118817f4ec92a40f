"""Known output schemas: when they are current, and how large they may be."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mcp_manager.protocol.bounded_schema import BoundedSchema
from mcp_manager.session.knowledge import output_schemas
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.peer_faults import PeerFaults


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def known(clock: Clock) -> tuple[OutputSchemas, PeerFaults]:
    faults = PeerFaults("s", clock)
    return OutputSchemas(faults, clock), faults


def test_a_list_asked_for_before_the_news_of_a_change_teaches_nothing() -> None:
    outputs, _ = known(Clock())
    epoch = outputs.epoch
    outputs.forget()
    outputs.learn([("a", b"{}")], "stamp", epoch)
    assert not outputs.knows("a")
    outputs.learn([("a", b"{}")], "stamp", outputs.epoch)
    assert outputs.knows("a")


def test_what_was_learnt_is_current_for_five_minutes_and_its_session() -> None:
    clock = Clock()
    outputs, _ = known(clock)
    outputs.learn([], "stamp", outputs.epoch)
    assert outputs.is_current("stamp")
    assert not outputs.is_current("other")
    clock.now_ns = 300 * 10**9
    assert not outputs.is_current("stamp")


async def test_schemas_beyond_measure_are_counted_and_not_kept() -> None:
    outputs, faults = known(Clock())
    outputs.learn([(str(i), b" " * 200_000) for i in range(200)], "stamp", outputs.epoch)
    assert outputs.knows("0") and not outputs.knows("199")
    assert await outputs.find_fault("0", {}) is None
    assert faults.counts == {"an output schema that cannot be used": 2}


def test_a_fault_that_would_take_long_to_find_is_somewhere() -> None:
    schema = BoundedSchema(b'{"items":{"enum":[' + b",".join(b"%d" % i for i in range(500)) + b"]}}")
    assert schema.fault_in([0] * 100 + [-1]) == "somewhere"


async def test_a_large_content_is_checked_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[threading.Thread] = []
    judged = output_schemas._judged

    def judge(*args: Any) -> Any:
        readers.append(threading.current_thread())
        return judged(*args)

    monkeypatch.setattr(output_schemas, "_judged", judge)
    faults = PeerFaults("s", lambda: 0)
    outputs = OutputSchemas(faults, lambda: 0)
    outputs.learn([("t", b'{"items":{"type":"integer"}}'), ("odd", b"[")], None, 0)
    assert await outputs.find_fault("t", [1] * 100) is None
    assert await outputs.find_fault("t", [1] * 10_000) is None
    assert await outputs.find_fault("t", [1] * 10_000 + ["x"]) is not None
    assert await outputs.find_fault("odd", [1] * 10_000) is None
    assert [each is threading.current_thread() for each in readers] == [True, False, False, False]
    assert faults.counts == {"an output schema that cannot be used": 1}
