"""What a server writes a little wrong, and is understood all the same: each time it is said what it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.json_delimiting import scanning_by

from mcp_manager._core.jsonrpc import ERROR, NOTIFICATION, REQUEST, RESULT, FrameError, scan, scan_replies, scan_reply
from mcp_manager._core.jsonrpc import vector_paths as paths
from mcp_manager._core.mending import mended_error, without_constants, without_lone_surrogates
from mcp_manager.protocol.rpc_error import read_error
from mcp_manager.transports.received import read_messages

NULLS = "a member that is null and should be absent"
ODD_ERROR = "an error object that breaks JSON-RPC"
ERROR_OBJECT = '{"code":-32000,"message":"no"}'


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize(
    ("members", "oddity", "kind", "passed_on"),
    [
        ('"id":7,"result":{"a":1},"error":null', NULLS, RESULT, '"id":7,"result":{"a":1}'),
        ('"id":7,"error":null,"method":null,"params":null,"result":[]', NULLS, RESULT, '"id":7,"result":[]'),
        ('"id":7,"result":null,"error":' + ERROR_OBJECT, NULLS, ERROR, '"id":7,"error":' + ERROR_OBJECT),
        ('"id":7,"method":"tools/call","result":{}', "a reply with a method", RESULT, '"id":7,"result":{}'),
        ('"id":"7","result":{}', "an id that came back as text", RESULT, '"id":7,"result":{}'),
        ('"id":"7","error":' + ERROR_OBJECT, "an id that came back as text", ERROR, '"id":7,"error":' + ERROR_OBJECT),
        ('"id":7.0,"result":{}', "an id that came back as a fraction", RESULT, '"id":7,"result":{}'),
        ('"id":7e0,"result":{}', "an id that came back as a fraction", RESULT, '"id":7,"result":{}'),
        ('"id":7,"error":{"code":"-32000","message":"no"}', ODD_ERROR, ERROR, '"id":7,"error":' + ERROR_OBJECT),
        ('"id":7,"error":{"message":"no","code":-32000.0}', ODD_ERROR, ERROR, '"id":7,"error":' + ERROR_OBJECT),
        ('"id":7,"error":{"code":1,"message":null}', ODD_ERROR, ERROR, '"id":7,"error":{"code":1,"message":""}'),
        ('"id":7,"error":{"code":1}', ODD_ERROR, ERROR, '"id":7,"error":{"code":1,"message":""}'),
        (
            '"id":7,"error":{"code":1,"data":{"n":1e400},"message":["a"]}',
            ODD_ERROR,
            ERROR,
            '"id":7,"error":{"code":1,"message":"[\\"a\\"]","data":{"n":1e400}}',
        ),
    ],
)
def test_a_reply_that_is_not_quite_json_rpc_is_written_anew(
    members: str, oddity: str, kind: int, passed_on: str, path: str
) -> None:
    with scanning_by(path):
        reply = scan_reply(b'{"jsonrpc":"2.0",' + members.encode() + b"}")
        (in_batch,) = scan_replies(b'[ {"jsonrpc":"2.0",' + members.encode() + b"} ]")
    assert (reply.oddity, reply.kind, reply.id) == (oddity, kind, 7)
    assert reply.frame == b'{"jsonrpc":"2.0",' + passed_on.encode() + b"}" == in_batch.frame
    assert reply.take_frame(b'"mine"') == reply.frame or b'"mine"' in in_batch.take_frame(b'"mine"')


@pytest.mark.parametrize("version", ["", '"jsonrpc":"1.0",', '"jsonrpc":2.0,', '"jsonrpc":null,', '"jsonrpc":["2.0"],'])
def test_a_version_that_is_missing_or_another_one_is_overlooked(version: str) -> None:
    reply = scan_reply(b"{" + version.encode() + b'"id":7,"result":{"x":[1, 2]},"took":3}')
    assert reply.oddity == ("a message of another jsonrpc version" if version else "a message without jsonrpc")
    assert reply.frame == b'{"jsonrpc":"2.0","id":7,"result":{"x":[1, 2]}}'


def test_members_that_nobody_knows_are_no_oddity() -> None:
    frame = b'{"jsonrpc":"2.0","id":7,"result":{},"took":3,"server":null}'
    assert (scan_reply(frame).oddity, scan_reply(frame).frame) == (None, frame)


def test_nulls_of_what_a_server_asks_or_tells_are_absent_members() -> None:
    told = scan_reply(
        b'{"jsonrpc":"2.0","id":null,"method":"notifications/x","params":null,"result":null,"error":null}'
    )
    assert (told.kind, told.method, told.params, told.oddity) == (NOTIFICATION, "notifications/x", None, NULLS)
    asked = scan_reply(b'{"jsonrpc":"2.0","id":"7","method":"ping","params":null}')
    assert (asked.kind, asked.id, asked.id_raw, asked.oddity) == (REQUEST, "7", b'"7"', NULLS)


@pytest.mark.parametrize(
    "text", ["07", "+7", "-7", " 7", "7 ", "7.0", "7e0", "\u0667", "1_0", "", "x", "1" * 19, "0x7", "\uff17"]
)
def test_nothing_but_the_exact_decimal_text_of_an_id_is_that_id(text: str) -> None:
    reply = scan_reply(json.dumps({"jsonrpc": "2.0", "id": text, "result": 1}, ensure_ascii=False).encode())
    assert (reply.id, reply.oddity) == (text, None)


@pytest.mark.parametrize("number", ["7.5", "1e300", "-1e400", "9007199254740994.0"])
def test_a_number_that_is_no_exact_integer_is_no_other_id(number: str) -> None:
    reply = scan_reply(b'{"jsonrpc":"2.0","id":' + number.encode() + b',"result":1}')
    assert (reply.id, reply.oddity) == (float(number), None)


@pytest.mark.parametrize(
    "members",
    [
        '"id":7,"error":null',
        '"id":7,"result":{},"error":{"code":1,"message":"x"}',
        '"id":7,"result":{},"error":"boom"',
        '"id":7,"error":"boom"',
        '"id":7,"error":{"message":"no code"}',
        '"id":7,"error":{"code":"x","message":"no code"}',
        '"id":7,"error":{"code":1.5,"message":"no code"}',
        '"id":7,"error":{"code":null,"message":"no code"}',
        '"id":7,"error":{"code":true,"message":"no code"}',
        '"id":null,"result":{}',
        '"type":"heartbeat"',
        '"id":7,"method":null',
        '"id":7',
    ],
)
def test_what_may_mean_two_things_is_refused(members: str) -> None:
    with pytest.raises(FrameError):
        scan_reply(b'{"jsonrpc":"2.0",' + members.encode() + b"}")


def test_requests_of_callers_get_no_leniency() -> None:
    for data in (b'{"id":1,"method":"m","params":null}', b'{"jsonrpc":"1.0","method":"m"}', b'{"id":1,"method":null}'):
        with pytest.raises(FrameError):
            scan(data)
    assert scan(b'{"id":"7","method":"m"}').id_raw == b'"7"'


def received(data: bytes, charset: str = "") -> tuple[list[Any], list[str]]:
    faults: list[str] = []
    messages = read_messages(data, lambda kind, detail: faults.append(kind), charset)
    return [json.loads(message.frame) for message in messages], faults


GOOD = {"jsonrpc": "2.0", "id": 7, "result": {"t": "é€"}}
TEXT = json.dumps(GOOD, ensure_ascii=False)


@pytest.mark.parametrize(
    ("data", "charset", "faults"),
    [
        (TEXT.encode(), "", []),
        (b"\r\n\t " + TEXT.encode() + b"\r\n \n", "nonsense", []),
        (b"\xef\xbb\xbf" + TEXT.encode(), "", ["a byte order mark"]),
        (b"\xef\xbb\xbf[" + TEXT.encode() + b"]", "utf-8", ["a byte order mark"]),
        (TEXT.encode("utf-16"), "", ["JSON that is not in UTF-8"]),
        (TEXT.encode("utf-16-le"), "UTF-16LE", ["JSON that is not in UTF-8"]),
        (TEXT.encode("cp1252"), "windows-1252", ["JSON that is not in UTF-8"]),
        (TEXT.encode(), "windows-1252", []),
    ],
)
def test_what_json_is_wrapped_in_is_taken_off(data: bytes, charset: str, faults: list[str]) -> None:
    assert received(data, charset) == ([GOOD], faults)


def test_constants_of_python_become_what_json_has() -> None:
    data = b'{"jsonrpc":"2.0","id":7,"result":[NaN,-Infinity,"NaN \\" Infinity",{"NaN":Infinity}],"error":null}'
    messages, faults = received(data)
    assert messages[0]["result"] == [None, -float("inf"), 'NaN " Infinity', {"NaN": float("inf")}]
    assert faults == ["NaN or Infinity, which are not JSON", NULLS]


@pytest.mark.parametrize(
    ("data", "charset", "reason"),
    [
        (TEXT.encode("utf-16-le"), "", "UTF-16 or UTF-32"),
        (TEXT.encode("utf-16-be"), "application/json", "UTF-16 or UTF-32"),
        (TEXT.encode("cp1252"), "", "invalid UTF-8"),
        (TEXT.encode("cp1252"), "utf-8", "invalid UTF-8"),
        (TEXT.encode("cp1252"), "idna", "invalid UTF-8"),
        (b"\xef\xbb\xbf", "", "expected a JSON object"),
        (b"ping", "latin-1", "expected a JSON object"),
        (b'{"jsonrpc":"2.0","id":7,"result":Nan}', "", "expected a JSON value"),
        (b"", "", "expected a JSON object"),
    ],
)
def test_what_is_wrong_is_told_as_it_is(data: bytes, charset: str, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        received(data, charset)


def test_a_surrogate_pair_is_left_alone_and_its_halves_are_not() -> None:
    text = rb'["\ud83d\ude00","\ud83d","\ude00","\\ud83d","\uD83D\n\uDE00","\ud83d\ud83d\ude00","\\\ud83dx"]'
    assert without_lone_surrogates(text) == (
        rb'["\ud83d\ude00","\ufffd","\ufffd","\\ud83d","\ufffd\n\ufffd","\ufffd\ud83d\ude00","\\\ufffdx"]'
    )
    whole = rb'"\ud83d\ude00 \\ud83d \u00e9 \ud8"'
    assert without_lone_surrogates(whole) is whole
    assert without_constants(whole) is whole


@pytest.mark.parametrize("tail", [rb"\ud83", rb"\u", b"\\", rb"\ud83d\u", rb"\ud83d\ude0"])
def test_a_text_that_ends_in_an_escape_is_not_read_beyond_its_end(tail: bytes) -> None:
    assert without_lone_surrogates(tail) == tail.replace(rb"\ud83d", rb"\ufffd")
    assert without_constants(b'"' + tail) == b'"' + tail
    assert without_constants(b"[Na") == b"[Na"


def test_an_error_is_mended_only_if_it_has_a_code() -> None:
    assert mended_error(rb'{"\u0063ode":" 1","message":1}') is None
    assert mended_error(rb'{"\u0063ode":"1","message":true}') == b'{"code":1,"message":"true"}'
    assert read_error(mended_error(b'{"code":"-5","data":1}') or b"").code == -5
