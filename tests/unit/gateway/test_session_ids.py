"""Ids of sessions: whose they are, for how long, and what they remember."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.errors import RpcError
from mcp_manager.gateway.sessions import ids
from mcp_manager.gateway.sessions.ids import SessionIds
from mcp_manager.gateway.sessions.sealing import Sealer

KEY = "k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def made(worker: int = 0, clock: Clock | None = None) -> SessionIds:
    return SessionIds(Sealer([KEY]), 60.0, worker, clock or Clock())


def test_another_process_with_the_same_key_knows_the_session() -> None:
    session_id, client = made(worker=3).begin("fleet", "anna", "2025-06-18", {"roots": {"listChanged": True}})
    found = made().find(session_id, "fleet", "anna")
    assert found == client
    assert found is not None and found.capabilities == {"roots": {"listChanged": True}}
    assert (found.revision, found.worker, found.principal) == ("2025-06-18", 3, "anna")
    assert made().worker_of(session_id) == 3


def test_two_sessions_of_one_principal_are_different() -> None:
    ids_ = made()
    (one, first), (two, second) = (ids_.begin("fleet", "anna", "2025-11-25", {}) for _ in range(2))
    assert one != two and first.session != second.session


@pytest.mark.parametrize("again", [False, True], ids=["known", "opened"])
def test_an_id_is_valid_for_its_principal_and_endpoint_only(again: bool) -> None:
    ids_ = made()
    session_id, _ = ids_.begin("server/a", "anna", "2025-11-25", {})
    asked = made() if again else ids_
    assert asked.find(session_id, "server/a", "bert") is None
    assert asked.find(session_id, "server/b", "anna") is None
    assert asked.find(session_id[:-2], "server/a", "anna") is None
    assert asked.find("x" * 100_000, "server/a", "anna") is None
    assert asked.find(Sealer([KEY]).seal(b"session", b"other"), "server/a", "anna") is None
    assert asked.find(session_id, "server/a", "anna") is not None


@pytest.mark.parametrize("again", [False, True], ids=["known", "opened"])
def test_an_id_expires(again: bool) -> None:
    clock = Clock()
    ids_ = made(clock=clock)
    session_id, _ = ids_.begin("fleet", "anna", "2025-11-25", {})
    asked = made(clock=clock) if again else ids_
    clock.now += 59
    assert asked.find(session_id, "fleet", "anna") is not None
    clock.now += 1
    assert asked.find(session_id, "fleet", "anna") is None
    assert made(clock=clock).worker_of(session_id) is None


def same_bytes(text: str) -> str:
    """Return another writing of the same bytes: base64 ignores the last bits of its last letter."""

    def read(each: str) -> bytes:
        return base64.urlsafe_b64decode(each + "=" * (-len(each) % 4))

    others = (text[:-1] + each for each in string.ascii_letters + string.digits)
    return next(each for each in others if each != text and read(each) == read(text))


def test_an_ended_session_stays_ended() -> None:
    ids_ = made()
    session_id, client = ids_.begin("fleet", "anna", "2025-11-25", {"roots": {}})
    other_id, _ = ids_.begin("fleet", "anna", "2025-11-25", {})
    again = same_bytes(session_id)
    assert ids_.find(again, "fleet", "anna") == client
    assert ids_.find(f"{session_id}=", "fleet", "anna") is None
    ids_.end(session_id, client)
    assert ids_.find(session_id, "fleet", "anna") is None
    assert ids_.find(again, "fleet", "anna") is None
    assert ids_.find(other_id, "fleet", "anna") is not None


def test_ids_follow_another_life() -> None:
    clock = Clock()
    ids = made(clock=clock)
    (kept, _), (ended, client) = (ids.begin("fleet", "alice", "2025-11-25", {}) for _ in range(2))
    ids.end(ended, client)
    ids.replace_ttl(600.0)
    clock.now += 100.0
    other, others_client = ids.begin("fleet", "bob", "2025-11-25", {})
    # Whatever is forgotten with it, no session that has ended is there again.
    ids.end(other, others_client)
    assert ids.find(kept, "fleet", "alice") is not None
    assert ids.find(ended, "fleet", "alice") is None
    ids.replace_ttl(50.0)
    assert ids.find(kept, "fleet", "alice") is None


def test_what_is_known_and_what_has_ended_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_MOST_KNOWN", 8)
    monkeypatch.setattr(ids, "_MOST_ENDED", 4)
    ids_ = made()
    begun = [ids_.begin("fleet", "anna", "2025-11-25", {}) for _ in range(20)]
    assert len(ids_._newer) + len(ids_._older) <= 8
    assert all(ids_.find(session_id, "fleet", "anna") == client for session_id, client in begun)
    for session_id, client in begun:
        ids_.end(session_id, client)
    assert len(ids_.ended) <= 4
    assert ids_.find(begun[-1][0], "fleet", "anna") is None


def test_long_capabilities_lose_what_no_server_needs_or_are_refused() -> None:
    ids_ = made()
    _, client = ids_.begin("fleet", "a", "2025-11-25", {"sampling": {}, "experimental": {"x": "y" * 5_000}})
    assert client.capabilities == {"sampling": {}}
    with pytest.raises(RpcError, match="longer than"):
        ids_.begin("fleet", "a", "2025-11-25", {"sampling": {"x": "y" * 5_000}})


@given(at=st.integers(0, 10_000), character=st.characters(max_codepoint=0x2FF))
def test_no_change_of_an_id_leaves_it_valid(at: int, character: str) -> None:
    session_id, _ = made().begin("fleet", "anna", "2025-11-25", {"roots": {}})
    at %= len(session_id) - 1
    forged = session_id[:at] + character + session_id[at + 1 :]
    # Both alphabets of base64 mean the same bytes (RFC 4648, sections 4 and 5).
    is_same = forged.replace("+", "-").replace("/", "_") == session_id
    assert (made().find(forged, "fleet", "anna") is None) == (not is_same)
