"""Requests between the eras: each server gets the members of its era, and everything else as the client wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager._core.jsonrpc import scan
from mcp_manager.gateway.envelopes import for_handshake_server, for_stateless_server, stateless_declaration

META = "io.modelcontextprotocol/"
OF_STATELESS = {
    META + "protocolVersion": "2026-07-28",
    META + "clientInfo": {"name": "c", "version": "1"},
    META + "clientCapabilities": {"elicitation": {}},
}
FOREIGN = {"traceparent": "00-1-2-01", "com.example/x": [1.50, {"y": None}], "progressToken": 7}


def frame(params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "i", "method": "tools/call", "params": params}).encode()


def params_of(message: Any) -> Any:
    assert (message.id_raw, message.method) == (b'"i"', "tools/call")
    return json.loads(message.params)


def test_a_handshake_server_gets_nothing_of_the_other_era() -> None:
    given = {**FOREIGN, **OF_STATELESS, META + "logLevel": "debug"}
    sent = params_of(for_handshake_server(scan(frame({"name": "t", "_meta": given}))))
    assert sent == {"name": "t", "_meta": {**FOREIGN, META + "logLevel": "debug"}}
    assert params_of(for_handshake_server(scan(frame({"name": "t", "_meta": OF_STATELESS})))) == {"name": "t"}


@pytest.mark.parametrize("params", [{"name": "t"}, {"name": "t", "_meta": FOREIGN}, {"name": META}, [1]])
def test_requests_without_such_members_stay_as_they_are(params: Any) -> None:
    message = scan(frame(params))
    assert for_handshake_server(message) is message


def test_values_stay_as_they_are_written() -> None:
    raw = b'{"id":1,"method":"m","params":{"n":1.50e+01,"s":"\\u00e4/","_meta":{"io.modelcontextprotocol/clientInfo":1,"x":1.0}}}'
    sent = for_handshake_server(scan(raw)).params
    assert sent is not None
    assert b'"n":1.50e+01' in sent
    assert b'"s":"\\u00e4/"' in sent
    assert b'"x":1.0' in sent


def test_an_escaped_name_is_no_way_around() -> None:
    raw = b'{"id":1,"method":"m","params":{"_meta":{"io.modelcontextprotocol\\/clientInfo":1,"x":2}}}'
    assert json.loads(for_handshake_server(scan(raw)).params or b"") == {"_meta": {"x": 2}}


def test_a_stateless_server_is_told_what_the_client_declared() -> None:
    capabilities = {
        "elicitation": {"form": {}},
        "roots": {"listChanged": True},
        "extensions": {"com.example/e": {"z": 1}},
        "tasks": {"list": {}},
    }
    declaration = stateless_declaration(capabilities)
    sent = params_of(for_stateless_server(scan(frame({"name": "t", "_meta": FOREIGN})), declaration))
    assert sent["_meta"] == {
        **FOREIGN,
        META + "clientCapabilities": {
            "elicitation": {"form": {}},
            "roots": {},
            "extensions": {"com.example/e": {"z": 1}, "io.modelcontextprotocol/tasks": {}},
        },
    }
    assert sent["name"] == "t"


def test_a_request_without_params_gets_some() -> None:
    message = for_stateless_server(scan(b'{"id":"i","method":"tools/call"}'), b"{}")
    assert params_of(message) == {"_meta": {META + "clientCapabilities": {}}}


@pytest.mark.parametrize("params", [[1], {"_meta": 3}])
def test_params_that_are_wrong_are_left_to_the_server(params: Any) -> None:
    message = scan(frame(params))
    assert for_stateless_server(message, b"{}") is message
