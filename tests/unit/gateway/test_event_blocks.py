"""Streams of events are cut between events only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.gateway.workers.event_blocks import EventBlocks

_EVENTS = st.lists(st.sampled_from([b": keep-alive\n\n", b"data: {}\n\n", b"id: 1\ndata: a\ndata: b\n\n"]))


@given(events=_EVENTS, rest=st.sampled_from([b"", b"data: half", b"data: half\n"]), sizes=st.lists(st.integers(1, 9)))
def test_what_is_passed_on_ends_with_an_event(events: list[bytes], rest: bytes, sizes: list[int]) -> None:
    sent, blocks = b"".join([*events, rest]), EventBlocks()
    passed, place = [], 0
    for size in [*sizes, len(sent)]:
        passed.append(blocks.take(sent[place : place + size]))
        place += size
    assert b"".join(passed) == b"".join(events)
    assert all(each == b"" or each.endswith(b"\n\n") for each in passed)
