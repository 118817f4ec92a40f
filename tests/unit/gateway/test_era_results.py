"""Responses adapted to the era of the client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager.gateway.eras.results import for_handshake, for_stateless, is_complete, server_info_member

INFO = server_info_member({"name": "fixture", "version": "1"})
NAMED = {"io.modelcontextprotocol/serverInfo": {"name": "fixture", "version": "1"}}


def stateless(response: bytes, method: str = "tools/call", id_raw: bytes = b"1") -> dict[str, Any]:
    """Return the adapted response, decoded."""
    adapted, _ = for_stateless(response, id_raw, method, INFO)
    decoded: dict[str, Any] = json.loads(adapted)
    return decoded


@pytest.mark.parametrize(
    "response",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"a":[1, 2]}}',
        b'{"jsonrpc":"2.0","id":1   ,"result":{"a":[1, 2]}}',
        b'{"result":{"a":[1, 2]},"jsonrpc":"2.0","id":1}',
        b'{ "id" : 1, "jsonrpc" : "2.0", "result" : { "a":[1, 2] } }',
    ],
)
def test_results_of_the_handshake_era_get_what_stateless_clients_need(response: bytes) -> None:
    adapted, status = for_stateless(response, b"1", "tools/call", INFO)
    assert status == 200
    assert json.loads(adapted) == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"resultType": "complete", "_meta": NAMED, "a": [1, 2]},
    }
    assert b'"a":[1, 2]' in adapted


def test_an_empty_result_gets_no_stray_comma() -> None:
    assert stateless(b'{"jsonrpc":"2.0","id":1,"result":{ }}')["result"] == {"resultType": "complete", "_meta": NAMED}


@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "resources/read"])
def test_lists_and_reads_say_that_nobody_may_keep_them(method: str) -> None:
    result = stateless(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}', method)["result"]
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")


def test_what_a_server_says_itself_stays() -> None:
    said = b'{"jsonrpc":"2.0","id":1,"result":{"ttlMs":5,"tools":[],"cacheScope":"public","_meta":{"own":1}}}'
    result = stateless(said, "tools/list")["result"]
    assert (result["ttlMs"], result["cacheScope"]) == (5, "public")
    assert result["_meta"] == {"own": 1, **NAMED}


def test_members_within_others_do_not_count() -> None:
    inner = b'{"resultType":"x","ttlMs":1,"cacheScope":"y","_meta":{}}'
    response = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[' + inner + b"]}}"
    result = stateless(response, "tools/list")["result"]
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
    assert result["_meta"] == NAMED
    assert result["tools"] == [json.loads(inner)]


@pytest.mark.parametrize("kind", ["complete", "input_required", "task"])
@pytest.mark.parametrize("form", ['{"resultType":"%s","a":1}', '{"a":1,"resultType":"%s"}'])
def test_results_of_the_stateless_era_stay_as_they_are(kind: str, form: str) -> None:
    response = b'{"jsonrpc":"2.0","id":"x","result":' + (form % kind).encode() + b"}"
    result = stateless(response, id_raw=b'"x"')["result"]
    assert (result["resultType"], result["a"]) == (kind, 1)


@pytest.mark.parametrize(
    ("code", "status"),
    [(-32601, 404), (-32602, 400), (-32020, 400), (-32021, 400), (-32022, 400), (-32603, 200), (-32001, 200)],
)
def test_errors_have_the_status_of_their_code(code: int, status: int) -> None:
    response = b'{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"no"}}' % code
    assert for_stateless(response, b"1", "tools/call", INFO) == (response, status)


def test_a_resource_that_is_missing_has_the_code_of_the_era() -> None:
    old = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"no","data":{"uri":"a:b"}}}'
    adapted, status = for_stateless(old, b"1", "resources/read", INFO)
    assert status == 400
    assert json.loads(adapted)["error"] == {"code": -32602, "message": "no", "data": {"uri": "a:b"}}
    assert json.loads(for_handshake(adapted, b"1", "resources/read"))["error"]["code"] == -32002
    assert for_handshake(adapted, b"1", "tools/call") == adapted


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (b'{"resultType":"complete","a":[1, 2]}', b'{"a":[1, 2]}'),
        (b'{"a":[1, 2],"resultType":"complete"}', b'{"a":[1, 2]}'),
        (b'{"a":[1, 2],"resultType":"complete","b":{}}', b'{"a":[1, 2],"b":{}}'),
        (b'{"resultType":"complete"}', b"{}"),
        (b'{"a":{"b":1,"resultType":"complete"}}', b'{"a":{"b":1,"resultType":"complete"}}'),
    ],
)
def test_handshake_clients_get_no_result_type(result: bytes, expected: bytes) -> None:
    head = b'{"jsonrpc":"2.0","id":1,"result":'
    assert for_handshake(head + result + b"}", b"1", "tools/call") == head + expected + b"}"


def test_handshake_clients_get_no_caching_hints() -> None:
    listed = b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[],"ttlMs":1,"cacheScope":"public"}}'
    assert for_handshake(listed, b"1", "tools/list") == b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'


@pytest.mark.parametrize("response", [b"", b"{}", b"[1]", b'{"jsonrpc":"2.0","id":1,"result":[1]}', b"\xff"])
def test_what_is_no_response_with_an_object_stays(response: bytes) -> None:
    assert for_stateless(response, b"1", "tools/call", INFO) == (response, 200)
    assert for_handshake(response, b"1", "tools/call") == response


def test_long_results_are_adapted_without_being_searched() -> None:
    text = b'"content":[{"type":"text","text":"%b"}]' % (b"x" * 100_000)
    response = b'{"jsonrpc":"2.0","id":1,"result":{' + text + b"}}"
    adapted, _ = for_stateless(response, b"1", "tools/call", INFO, is_of_handshake=True)
    assert adapted == b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete",' + text + b"}}"
    assert for_handshake(adapted, b"1", "tools/call") == response
    assert for_handshake(response, b"1", "tools/call") == response
    assert for_stateless(adapted, b"1", "tools/call", INFO) == (adapted, 200)


@pytest.mark.parametrize(
    ("result", "complete"),
    [
        (b'{"resultType":"complete","a":1}', True),
        (b'{"a":1,"resultType":"complete"}', True),
        (b'{"resultType":"task"}', False),
        (b'{"a":"\\"resultType\\":\\"complete\\""}', False),
        (b'{"a":{"resultType":"complete"}}', False),
    ],
)
def test_a_complete_result_is_seen(result: bytes, complete: bool) -> None:
    assert is_complete(b'{"jsonrpc":"2.0","id":7,"result":' + result + b"}", b"7") is complete


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
def test_errors_of_the_stateless_era_become_ones_that_handshake_clients_know(code: int) -> None:
    response = b'{"jsonrpc":"2.0","id":7,"error":{"code":%d,"message":"no","data":{"x":1}}}' % code
    adapted = json.loads(for_handshake(response, b"7", "tools/call"))
    assert adapted == {"jsonrpc": "2.0", "id": 7, "error": {"code": -32600, "message": "no", "data": {"x": 1}}}


def test_results_and_errors_that_only_name_such_a_code_stay() -> None:
    for inner in (b'"result":{"error":"-32021"}', b'"error":{"code":-32601,"message":"-32021"}'):
        response = b'{"jsonrpc":"2.0","id":7,%b}' % inner
        assert for_handshake(response, b"7", "tools/call") is response


@pytest.mark.parametrize("length", [10, 8_000, 8_192, 20_000])
def test_the_type_of_a_result_is_found_at_both_ends(length: int) -> None:
    filler = b'"text":"%b"' % (b"x" * length)
    for members in (b'"resultType":"complete",' + filler, filler + b',"resultType":"complete"'):
        response = b'{"jsonrpc":"2.0","id":7,"result":{%b}}' % members
        assert b"resultType" not in for_handshake(response, b"7", "tools/call")
