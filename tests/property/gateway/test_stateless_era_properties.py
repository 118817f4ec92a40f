"""Whatever servers answer and clients send: nothing is changed that need not be, and nobody takes over what is sealed."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from mcp_manager.errors import RpcError
from mcp_manager.gateway.endpoints.task_ids import TaskIds
from mcp_manager.gateway.eras.header_checks import decoded_field
from mcp_manager.gateway.eras.request_state import Place, RequestStates, State
from mcp_manager.gateway.eras.results import for_handshake, for_stateless, server_info_member
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.header_values import encode_header_value

INFO = server_info_member({"name": "g", "version": "1"})
ERA = ("resultType", "ttlMs", "cacheScope", "_meta", "io.modelcontextprotocol/serverInfo")
NAMES = st.sampled_from([*ERA, "a", 'x"y', "result", "ä"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT | st.sampled_from(["complete", '"resultType":"complete"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
RESULTS = st.dictionaries(NAMES, JSON, max_size=5)
METHODS = st.sampled_from(["tools/call", "tools/list", "resources/read", "x"])
IDS = st.integers() | TEXT
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (" ,", "\t:\n")])
SEALER = Sealer()
STATES = RequestStates(SEALER)
PLACES = st.builds(Place, TEXT, TEXT, TEXT, TEXT)


def response(result: Any, request_id: Any, spaces: tuple[str, str], *, first: bool) -> bytes:
    """Return a response, with the result first or last."""
    content = {"jsonrpc": "2.0", "id": request_id, "result": result}
    ordered = {"result": result, **content} if first else content
    return json.dumps(ordered, separators=spaces).encode()


@settings(max_examples=examples(50))
@given(RESULTS, IDS, SPACES, METHODS, st.booleans())
def test_a_stateless_client_gets_the_same_values_and_what_was_missing(
    result: dict[str, Any], request_id: Any, spaces: tuple[str, str], method: str, first: bool
) -> None:
    given_response = response(result, request_id, spaces, first=first)
    adapted, status = for_stateless(given_response, json.dumps(request_id).encode(), method, INFO)
    decoded = json.loads(adapted)
    assert (status, decoded["id"]) == (200, request_id)
    got = decoded["result"]
    assert "resultType" in got
    assert method not in ("tools/list", "resources/read") or {"ttlMs", "cacheScope"} <= got.keys()
    added = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    for name, value in got.items():
        if name != "_meta":
            assert value == result.get(name, added.get(name))
        elif isinstance(value, dict):
            own = result.get("_meta", {})
            assert {name: value[name] for name in own} == own or not isinstance(own, dict)
    assert result.keys() <= got.keys()
    # Adapting once is enough.
    assert json.loads(for_stateless(adapted, json.dumps(request_id).encode(), method, INFO)[0]) == decoded


@settings(max_examples=examples(50))
@given(RESULTS, IDS, SPACES, METHODS, st.booleans())
def test_a_handshake_client_gets_the_same_values_and_nothing_of_the_other_era(
    result: dict[str, Any], request_id: Any, spaces: tuple[str, str], method: str, first: bool
) -> None:
    given_response = response(result, request_id, spaces, first=first)
    decoded = json.loads(for_handshake(given_response, json.dumps(request_id).encode(), method))
    hints = ("ttlMs", "cacheScope") if method in ("tools/list", "resources/read") else ()
    dropped = ("resultType", *hints) if "resultType" in result else ()
    assert decoded["result"] == {name: value for name, value in result.items() if name not in dropped}
    assert decoded["id"] == request_id


@settings(max_examples=examples(50))
@given(JSON, SPACES)
def test_values_keep_their_bytes(value: Any, spaces: tuple[str, str]) -> None:
    raw = json.dumps(value, separators=spaces).encode()
    member = b'"schema":' + raw
    for result in (b"{" + member + b"}", b'{"_meta":{},' + member + b"}", b'{"resultType":"complete",' + member + b"}"):
        head = b'{"jsonrpc":"2.0","id":1,"result":' + result + b"}"
        for method in ("tools/call", "tools/list"):
            assert raw in for_stateless(head, b"1", method, INFO)[0]
            assert raw in for_handshake(head, b"1", method)


@settings(max_examples=examples(50))
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_a_client_encodes_is_what_the_gateway_reads(value: str) -> None:
    field = encode_header_value(value).encode("ascii")
    assert decoded_field(b"\t " + field + b" ") == value


@settings(max_examples=examples(50))
@given(st.binary(max_size=40))
def test_no_field_makes_the_decoding_fail(value: bytes) -> None:
    for each in (value, b"=?base64?" + value + b"?=", b"=?base64?" + base64.b64encode(value) + b"?="):
        decoded = decoded_field(each)
        assert decoded is None or isinstance(decoded, str)


@settings(max_examples=examples(50))
@given(PLACES, PLACES, TEXT, st.integers(0, 7))
def test_a_state_is_good_for_its_place_only(place: Place, other: Place, text: str, worker: int) -> None:
    state = State(place, "server", json.dumps(text), "key" if worker else "", worker)
    sealed = STATES.seal(state)
    assert STATES.open(sealed, place) == state
    assert STATES.worker_of(sealed) == worker
    if other != place:
        with pytest.raises(RpcError):
            STATES.open(sealed, other)


@settings(max_examples=examples(50))
@given(st.integers(0, 10_000), st.sampled_from("ABab01-_"), PLACES)
def test_a_changed_state_is_refused(at: int, letter: str, place: Place) -> None:
    sealed = STATES.seal(State(place, "server", '"s"'))
    at %= len(sealed)
    changed = sealed[:at] + letter + sealed[at + 1 :]
    # The last character may have bits that mean nothing.
    if changed != sealed and at < len(sealed) - 1:
        with pytest.raises(RpcError):
            STATES.open(changed, place)
    with pytest.raises(RpcError):
        STATES.open(sealed + "-TAMPERED", place)


@settings(max_examples=examples(50))
@given(TEXT)
def test_nothing_else_is_a_state(text: str) -> None:
    place = Place("", "", "", "")
    for each in (text, TaskIds(SEALER).seal("", "", text, text), SEALER.seal(b"requestState", text.encode())):
        with pytest.raises(RpcError) as caught:
            STATES.open(each, place)
        assert caught.value.code == -32602
        assert STATES.worker_of(each) is None


@settings(max_examples=examples(50))
@given(TEXT, TEXT, TEXT, TEXT)
def test_task_ids_belong_to_a_principal_and_an_endpoint(one: str, other: str, server: str, task: str) -> None:
    ids = TaskIds(SEALER)
    sealed = ids.seal(one, "fleet", server, task)
    assert ids.open(one, "fleet", sealed) == (server, task)
    assert ids.open(one, "view/x", sealed) is None
    assert one == other or ids.open(other, "fleet", sealed) is None
    assert ids.open(one, "fleet", STATES.seal(State(Place(one, "fleet", "", ""), server))) is None
    assert msgspec.json.decode(msgspec.json.encode(sealed)) == sealed
