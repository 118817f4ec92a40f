"""Streams end with the credentials that they were opened with."""

from __future__ import annotations

import asyncio

import pytest

from mcp_manager.gateway.security import leases as module
from mcp_manager.gateway.security.leases import Leases
from mcp_manager.gateway.security.principal import EVERYBODY, Principal


class Stream:
    """A stream that counts its ends."""

    def __init__(self, ended: asyncio.Event | None = None) -> None:
        self.ends = 0
        self.ended = ended

    @property
    def is_open(self) -> bool:
        return not self.ends

    def end(self) -> None:
        self.ends += 1
        if self.ended is not None:
            self.ended.set()


async def test_what_expires_ends_unless_it_was_renewed() -> None:
    now = 1_000.0
    leases = Leases(lambda principal: True, lambda: now)
    old = Principal("ann", expires_at=1_010.0, credential="a")
    newer = Principal("ann", expires_at=2_000.0, credential="b")
    plain, renewed, foreign, ended = Stream(), Stream(), Stream(), Stream()
    leases.add(old, plain)
    leases.add(old, renewed, "s1")
    leases.add(old, foreign, "s2")
    leases.add(EVERYBODY, ended)
    leases.renew("s1", newer)
    leases.renew("s2", Principal("bob", expires_at=2_000.0, credential="c"))
    now = 1_011.0
    leases._look()
    assert (plain.ends, renewed.ends, foreign.ends, ended.ends) == (1, 0, 1, 0)
    assert len(leases) == 2 and list(leases.of_sessions) == ["s1"]
    leases.stop()
    assert len(leases) == 0 and renewed.ends == 0


async def test_a_timer_ends_what_was_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.01)
    leases = Leases(lambda principal: False)
    stream = Stream(asyncio.Event())
    leases.add(Principal("ann", credential="a"), stream)
    assert stream.ended is not None
    await asyncio.wait_for(stream.ended.wait(), 10)
    assert stream.ends == 1 and len(leases) == 0
    leases.stop()


async def test_streams_that_have_ended_are_forgotten() -> None:
    leases = Leases(lambda principal: True)
    for number in range(1_000):
        stream = Stream()
        leases.add(Principal("ann", credential="a"), stream, f"s{number}")
        stream.end()
    assert len(leases) <= 200 and len(leases.of_sessions) <= 200
    leases.stop()
