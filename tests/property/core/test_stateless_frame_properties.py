"""The compiled frame of requests against the one in Python, byte for byte, and its glance at results."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_manager._core.http_message import Request
from mcp_manager._core.jsonrpc import FrameError, Message, scan, scan_reply
from mcp_manager._core.stateless_frame import StatelessFrame, says_complete
from mcp_manager.errors import InvalidRequestError
from mcp_manager.protocol.envelope import Envelope
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.protocol.header_values import header_line
from mcp_manager.protocol.methods import NAME_MEMBER
from mcp_manager.protocol.multi_round import COMPLETE, MalformedResult, result_type

CLIENT = ClientIdentity(name="n", version="v", stateless_capabilities={"roots": {}})
KNOWN = {
    json.dumps(method).encode(): (header_line("Mcp-Method", method), member.encode())
    for method, member in NAME_MEMBER.items()
}

NAMES = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12),
    st.text(max_size=8),
    st.text(st.sampled_from(" \t=?é\x7f~a"), max_size=5),
    st.builds("=?base64?{}?=".format, st.text(st.sampled_from("QUJD="), max_size=8)),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["name", "uri", "taskId", "arguments", "_meta", "a", "Name", "nam"])
METHODS = st.sampled_from([*NAME_MEMBER, "completion/complete", "tools/calls"])
GAPS = st.sampled_from(["", "", " ", "\n\t "])


@st.composite
def texts_of_params(draw: st.DrawFn) -> bytes:
    """JSON of params with names twice there, gaps, escapes, and sometimes broken."""
    gap, ascii_only = draw(GAPS), draw(st.booleans())
    pairs = draw(st.lists(st.tuples(MEMBERS, NAMES | VALUES), max_size=4))
    if draw(st.booleans()):
        pairs.insert(draw(st.integers(0, len(pairs))), ("name", draw(NAMES)))

    def written(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=("," + gap, gap + ":"))

    members = ("," + gap).join(f"{written(name)}{gap}:{gap}{written(value)}" for name, value in pairs)
    text = f"{gap}{{{gap}{members}{gap}}}{gap}".encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from([b"", b"x", b"}", b'"', b"\\", b",", b"\x0b", b"\xff", b"{}"]))
            + text[at + 1 :]
        )
    return text


def dressed_in_python(method: str, params: bytes | None) -> tuple[bytes, bytes] | None:
    envelope = Envelope(CLIENT, "2026-07-28")
    try:
        fields = envelope.fields(method, params)
        frame = Request(json.dumps(method).encode(), envelope.params(params)).exchange(1_000_000_007, 5).frame
    except InvalidRequestError:
        return None
    return frame, fields


@given(METHODS, texts_of_params() | st.none())
@example("tools/call", b'{"name":"echo"}')
@example("tools/call", b'{"name":"a","name":"b"}')
@example("tools/call", b'{"name":1,"name":"b"}')
@example("tools/call", b'{"name":1a"}')
@example("tools/call", b'{"name":"a\\/b"}')
@example("tools/call", b'{"name":"a\x7f"}')
@example("tools/call", b'{"name":" a"}')
@example("tools/call", b'{"name":"a "}')
@example("tools/call", b'{"name":"a"} {}')
@example("tools/call", b'{"name":"=?base64?QQ==?="}')
@example("tools/call", b'{"name":"a","arguments":{"_meta":1}}')
@example("tools/call", b'{"\\u005fmeta":{},"name":"a"}')
@example("tools/call", b"{}")
@example("tools/call", b'{\x0b"name":"a"}')
@example("tools/call", b'{"name":"a",}')
@example("tools/call", b'{"arguments":{"name":"inner"},"name":"outer"}')
def test_what_is_dressed_in_c_is_what_python_makes_of_it(method: str, params: bytes | None) -> None:
    frame = StatelessFrame(Envelope(CLIENT, "2026-07-28").opening, KNOWN, {})
    raw = json.dumps(method).encode()
    exchange = frame.exchange(Request(raw, params), 1_000_000_007, 5)
    if exchange is not None:
        assert (exchange.frame, exchange.fields) == dressed_in_python(method, params)
        assert (exchange.request_id, exchange.deadline_ns) == (1_000_000_007, 5)
    if params is None:
        return
    try:
        message = scan(b'{"params":' + params + b',"jsonrpc":"2.0","method":' + raw + b',"id":1}')
    except FrameError:
        return
    assert isinstance(message, Message)
    alone = frame.exchange(Request(raw, message.params), 1_000_000_007, 5)
    inside = frame.exchange(message, 1_000_000_007, 5)
    assert (inside and (inside.frame, inside.fields)) == (alone and (alone.frame, alone.fields))


MORE, FIELD = b'"traceparent":"00-1","more":{}', b"traceparent: 00-1\r\n"


@given(METHODS, texts_of_params())
@example("tools/call", b'{"name":"echo"}')
@example("tools/call", b'{ "name":"echo"}')
def test_further_members_of_meta_are_dressed_in_c_as_in_python(method: str, params: bytes) -> None:
    params, raw, envelope = params.strip(), json.dumps(method).encode(), Envelope(CLIENT, "2026-07-28")
    if not params.startswith(b"{"):
        with pytest.raises(ValueError, match="object"):
            Request(raw, params, MORE)
        return
    exchange = StatelessFrame(envelope.opening, KNOWN, {}).exchange(Request(raw, params, MORE, FIELD), 7, 5)
    if exchange is not None:
        assert json.loads(exchange.frame)["params"] == json.loads(envelope.params(params, MORE))
        assert exchange.fields == envelope.fields(method, params) + FIELD


@given(st.dictionaries(st.text(max_size=4).filter("_meta".__ne__), VALUES, max_size=3) | st.none(), GAPS)
def test_members_of_meta_are_added_where_there_was_none(params: dict[str, Any] | None, gap: str) -> None:
    text = None if params is None else json.dumps(params).replace("{", "{" + gap, 1).encode()
    exchange = Request(b'"m"', text, MORE, FIELD).exchange(7, 5)
    sent = json.loads(exchange.frame)
    assert sent.pop("params") == {**(params or {}), "_meta": json.loads(b"{%b}" % MORE)}
    assert sent == {"jsonrpc": "2.0", "id": 7, "method": "m"}
    assert exchange.fields == FIELD
    assert Request(b'"m"', text).exchange(7, 5).fields is None


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='="\\'), min_size=1), VALUES)
def test_ordinary_calls_are_dressed_in_c(name: str, value: object) -> None:
    params = json.dumps({"arguments": {"a": value}, "name": name}, ensure_ascii=False).encode()
    if b'"_meta"' in params or b"\\u" in params:
        return
    exchange = StatelessFrame(b'{"_meta":{}', KNOWN, {"": ()}).exchange(Request(b'"tools/call"', params), 1, 1)
    assert exchange is not None
    assert json.loads(exchange.frame)["params"] == {**json.loads(params), "_meta": {}}


def test_a_mirrored_tool_is_left_to_python_from_the_moment_it_is_known() -> None:
    mirrored: dict[str, object] = {}
    frame = StatelessFrame(b'{"_meta":{}', KNOWN, mirrored)
    request = Request(b'"tools/call"', b'{"name":"echo"}')
    assert frame.exchange(request, 1, 1) is not None
    mirrored["echo"] = ()
    assert frame.exchange(request, 1, 1) is None
    assert frame.exchange(Request(b'"tools/call"', b'{"name":"other"}'), 1, 1) is not None


def test_another_opening_counts_from_the_next_request_on() -> None:
    frame = StatelessFrame(b'{"_meta":{}', KNOWN, {})
    frame.open_with(b'{"_meta":{"a":1}')
    exchange = frame.exchange(Request(b'"tools/call"', b'{"name":"echo"}'), 1, 1)
    assert exchange is not None and exchange.frame.endswith(b'"params":{"_meta":{"a":1},"name":"echo"}}')


@pytest.mark.parametrize(
    "frame", [b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}']
)
def test_what_has_no_params_is_not_dressed_in_c(frame: bytes) -> None:
    message = scan(frame)
    assert isinstance(message, Message)
    assert StatelessFrame(b'{"_meta":{}', KNOWN, {}).exchange(message, 1, 1) is None


TYPES = st.sampled_from(["complete", "complete", "task", "input_required", 7, None])
KEYS = st.sampled_from(["resultType", "content", "a", "resulttype"])


@given(
    st.lists(st.tuples(KEYS, TYPES | VALUES | st.dictionaries(KEYS, TYPES, max_size=2)), max_size=4),
    GAPS,
    st.booleans(),
    st.integers(0, 6000),
)
@example([("resultType", "complete")], "", False, 0)
@example([("a", 1), ("resultType", "complete")], "", False, 6000)
@example([("a", {"resultType": "complete"}), ("resultType", "task")], "", False, 0)
def test_a_glance_at_a_result_never_says_more_than_reading_it(
    pairs: list[tuple[str, object]], gap: str, escaped: bool, padding: int
) -> None:
    if padding > 4000:
        pairs = [("b", "x" * padding), *pairs]
    members = ("," + gap).join(f"{json.dumps(key)}{gap}:{gap}{json.dumps(value)}" for key, value in pairs)
    text = f"{{{gap}{members}{gap}}}".encode()
    if escaped:
        text = text.replace(b"resultType", b"result\\u0054ype")
    reply = scan_reply(b'{"jsonrpc":"2.0","id":1,"result":' + text + b"}")
    assert reply is not None
    try:
        kind = result_type(reply.result_buffer or b"null")
    except MalformedResult:
        kind = ""
    if says_complete(reply):
        assert kind == COMPLETE
    plain = gap == "" and not escaped and b"\\u" not in text
    if plain and (not any(key == "resultType" for key, _ in pairs) and b"resultType" not in text):
        assert says_complete(reply)


@pytest.mark.parametrize("result", [b'{"resultType":"complete","a":1}', b'{"a":1,"resultType":"complete"}', b"{}"])
def test_where_nearly_every_server_has_its_type_a_glance_suffices(result: bytes) -> None:
    assert says_complete(scan_reply(b'{"jsonrpc":"2.0","id":1,"result":' + result + b"}"))


@pytest.mark.parametrize(
    "result", [b"[]", b"null", b'"complete"', b'{"resultType":"task"}', b'{"resultType" :"complete"}']
)
def test_everything_else_has_to_be_read(result: bytes) -> None:
    assert not says_complete(scan_reply(b'{"jsonrpc":"2.0","id":1,"result":' + result + b"}"))
