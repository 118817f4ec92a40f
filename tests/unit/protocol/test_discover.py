"""What an answer to server/discover says of a server, row by row, and what servers are told of the client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager.protocol.capabilities import handshake_capabilities, stateless_capabilities
from mcp_manager.protocol.discover import (
    Handshake,
    NoSharedRevision,
    Stateless,
    TryRevision,
    Verdict,
    read_discover_error,
    read_discover_result,
)
from mcp_manager.protocol.revisions import Era, newest_shared
from mcp_manager.session.knowledge.eras import EraMemory
from mcp_manager.session.knowledge.peer_faults import PeerFaults

NOW = "2026-07-28"
INFO = {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}


def judged(**result: Any) -> Verdict:
    return read_discover_result(json.dumps(result).encode())


@pytest.mark.parametrize(
    ("result", "revision"),
    [
        ({"supportedVersions": [NOW], "capabilities": {}}, NOW),
        ({"supportedVersions": ["2031-01-01", "2025-11-25", NOW], "capabilities": {}}, NOW),
        ({"supportedVersions": [NOW], "capabilities": {}, "instructions": 7, "_meta": None, "serverInfo": []}, NOW),
    ],
)
def test_a_shared_stateless_revision_is_spoken(result: dict[str, Any], revision: str) -> None:
    verdict = judged(**result)
    assert isinstance(verdict, Stateless) and verdict.revision == revision
    assert verdict.identity is not None and verdict.identity.instructions is None


def test_what_a_server_tells_of_itself_is_kept() -> None:
    verdict = judged(supportedVersions=[NOW], capabilities={"tools": {}}, instructions="do", _meta=INFO)
    assert isinstance(verdict, Stateless) and verdict.identity is not None
    assert (verdict.identity.name, verdict.identity.instructions) == ("s", "do")
    assert verdict.identity.capabilities == {"tools": {}}
    elsewhere = judged(supportedVersions=[NOW], capabilities={}, serverInfo={"name": "t"})
    assert isinstance(elsewhere, Stateless) and elsewhere.identity is not None and elsewhere.identity.name == "t"


def test_older_revisions_alone_mean_a_handshake_with_the_newest_of_them() -> None:
    assert judged(supportedVersions=["2024-11-05", "2025-06-18"], capabilities={}) == Handshake("2025-06-18")


def test_unknown_revisions_alone_are_told() -> None:
    assert judged(supportedVersions=["2031-01-01"], capabilities={}) == NoSharedRevision(("2031-01-01",))


@pytest.mark.parametrize(
    "result",
    [b"{}", b"null", b"[]", b"7", b'{"supportedVersions":"2026-07-28","capabilities":{}}', b"[" * 5000 + b"]" * 5000,
     b'{"supportedVersions":["2026-07-28"]}', b'{"supportedVersions":[7],"capabilities":{}}', b"\xff"],
)  # fmt: skip
def test_a_result_of_another_shape_means_a_handshake_and_says_why(result: bytes) -> None:
    verdict = read_discover_result(result)
    assert isinstance(verdict, Handshake) and verdict.revision is None and verdict.malformed


@pytest.mark.parametrize(
    ("code", "data", "verdict"),
    [
        (-32601, None, Handshake()),
        (-32602, {"supported": [NOW]}, Handshake()),
        (-32603, None, Handshake()),
        (-32000, None, Handshake()),
        (0, None, Handshake()),
        (-32020, None, Stateless(NOW)),
        (-32021, {"requiredCapabilities": {}}, Stateless(NOW)),
        (-32022, {"supported": [NOW], "requested": NOW}, TryRevision(NOW)),
        (-32022, {"supported": ["2025-03-26"]}, Handshake("2025-03-26")),
        (-32022, {"supported": ["2031-01-01"]}, NoSharedRevision(("2031-01-01",))),
        (-32022, {"supported": []}, NoSharedRevision(())),
        (-32022, None, Handshake()),
        (-32022, {"supported": NOW}, Handshake()),
        (-32022, [], Handshake()),
    ],
)
def test_every_error_has_its_verdict(code: int, data: Any, verdict: Verdict) -> None:
    error = json.dumps({"code": code, "message": "m", "data": data}).encode()
    assert read_discover_error(error, NOW) == verdict


@pytest.mark.parametrize("error", [b"", b"[]", b'{"code":"x"}', b"[" * 5000])
def test_an_error_that_is_none_means_a_handshake(error: bytes) -> None:
    assert read_discover_error(error, NOW) == Handshake()


def test_the_newest_shared_revision_goes_by_age_and_not_by_the_order_of_the_server() -> None:
    listed = ["2024-11-05", "2025-11-25", "2025-03-26", NOW, "9999-99-99"]
    assert newest_shared(listed, Era.HANDSHAKE) == "2025-11-25"
    assert newest_shared(listed, Era.STATELESS) == NOW
    for odd in (None, NOW, {NOW: 1}, 7, [], [7, None, ["x"]]):
        assert newest_shared(odd, Era.STATELESS) is None


def test_capabilities_follow_from_the_handlers() -> None:
    handled = {"sampling/createMessage", "elicitation/create", "roots/list", "notifications/message"}
    assert handshake_capabilities(handled, {}) == {
        "sampling": {},
        "elicitation": {"form": {}, "url": {}},
        "roots": {"listChanged": True},
    }
    assert handshake_capabilities((), {}) == {}
    assert handshake_capabilities(handled, {"sampling": {"tools": {}}})["sampling"] == {"tools": {}}


def test_a_stateless_client_announces_no_changes_of_its_roots() -> None:
    capabilities = stateless_capabilities({"roots/list"}, {"extensions": {"a/b": {"c": 1}}})
    assert capabilities["roots"] == {} and capabilities["extensions"]["a/b"] == {"c": 1}
    assert stateless_capabilities({"roots/list"}, {"roots": {"x": 1}})["roots"] == {"x": 1}


def test_a_doubt_is_entertained_once() -> None:
    memory = EraMemory()
    memory.keep("p", Era.HANDSHAKE)
    assert not memory.is_certain("p")
    memory.doubt("p")
    assert memory.recall("p") is None
    memory.keep("p", Era.HANDSHAKE)
    assert memory.is_certain("p") and not memory.is_certain("q")
    memory.keep("p", Era.STATELESS, verdict=Stateless(NOW))
    assert not memory.is_certain("p") and memory.verdict("p") == Stateless(NOW)
    memory.forget("p")
    assert memory.verdict("p") is None


def test_faults_are_all_counted_and_seldom_logged(caplog: pytest.LogCaptureFixture) -> None:
    now_ns = 0
    faults = PeerFaults("s", lambda: now_ns)
    for now_ns in range(0, 120 * 10**9, 10**9):  # noqa: B007  (the clock reads it)
        faults.count("odd", "why")
    faults.count("other")
    assert faults.counts == {"odd": 120, "other": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "server 's': odd: why (1 so far)",
        "server 's': odd: why (61 so far)",
        "server 's': other (1 so far)",
    ]
