"""The initialize handshake as pure decisions."""

from __future__ import annotations

import json

import pytest

from mcp_manager.protocol.handshake import ClientIdentity, HandshakeError, initialize_params, read_initialize_result


def test_the_latest_handshake_revision_is_offered() -> None:
    params = json.loads(initialize_params(ClientIdentity(name="n", version="v", capabilities={"roots": {}})))
    assert params == {
        "protocolVersion": "2025-11-25",
        "capabilities": {"roots": {}},
        "clientInfo": {"name": "n", "version": "v"},
    }


@pytest.mark.parametrize("revision", ["2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_counter_offer_of_a_known_revision_is_taken(revision: str) -> None:
    result = {"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    identity = read_initialize_result(json.dumps(result).encode())
    assert identity.protocol_version == revision
    assert (identity.name, identity.version, identity.capabilities) == ("s", "1", {"tools": {}})


def test_a_sparse_result_is_enough() -> None:
    assert read_initialize_result(b'{"protocolVersion":"2025-06-18"}').name == ""


@pytest.mark.parametrize(
    "result",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"protocolVersion":7}',
        b'{"protocolVersion":"1.0"}',
        b'{"protocolVersion":"2026-07-28"}',
    ],
)
def test_anything_else_is_refused(result: bytes) -> None:
    with pytest.raises(HandshakeError):
        read_initialize_result(result)
