"""The scanner's edges: ids, duplicate members, limits, splicing."""

from __future__ import annotations

import json

import pytest

from mcp_manager._core.jsonrpc import (
    ERROR,
    NOTIFICATION,
    REQUEST,
    FrameError,
    Message,
    notification_frame,
    request_frame,
    scan,
    scan_batch,
)


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        (b"0", 0),
        (b"-7", -7),
        (b"999999999999999999", 999999999999999999),
        (b"9223372036854775808", 2**63),
        (str(2**200).encode(), 2**200),
        (b"1.5", 1.5),
        (b"1e3", 1000.0),
        (b'""', ""),
        (b'"\\u00e9\\n"', "é\n"),
        ('"\U0001f600"'.encode(), "\U0001f600"),
        (b"null", None),
    ],
)
def test_ids_keep_their_value_and_their_spelling(raw: bytes, decoded: object) -> None:
    message = scan(b'{"method":"m","id":' + raw + b"}")
    assert message.kind == REQUEST
    assert message.id == decoded
    assert type(message.id) is type(decoded)
    assert message.id_raw == raw


@pytest.mark.parametrize("raw", [b"true", b"{}", b"[]", b"9" * 5000, b'"\\ud800"'])
def test_what_is_no_id_is_refused(raw: bytes) -> None:
    with pytest.raises(FrameError, match="id "):
        scan(b'{"method":"m","id":' + raw + b"}")


def test_the_last_of_several_members_counts_however_it_is_spelled() -> None:
    message = scan(b'{"id":1,"result":"a","\\u0069d":2,"r\\u0065sult":"b"}')
    assert (message.id, message.result) == (2, b'"b"')
    assert message.with_id(b"9") == b'{"id":1,"result":"a","\\u0069d":9,"r\\u0065sult":"b"}'


def test_members_of_nested_objects_are_not_the_messages() -> None:
    message = scan(b'{"result":{"id":5,"error":1,"method":"x"},"id":1}')
    assert (message.id, message.method, message.error) == (1, None, None)


def test_an_id_is_inserted_where_there_was_none() -> None:
    message = scan(b' { "method":"m"} ')
    assert message.kind == NOTIFICATION
    assert json.loads(message.with_id(b"3")) == {"id": 3, "method": "m"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'{"method":"m"',
        b'{"method":"m",}',
        b'{"method":"m"}}',
        b'{"method":"m"} x',
        b'{"method":1}',
        b'{"method":"m","params":"p"}',
        b'{"method":"m","params":null}',
        b'{"method":"m","jsonrpc":"1.0"}',
        b'{"method":"m","jsonrpc":2.0}',
        b'{"id":1}',
        b'{"id":1,"result":1,"error":{"code":1,"message":""}}',
        b'{"result":1}',
        b'{"id":null,"result":1}',
        b'{"id":1,"error":"x"}',
        b'{"id":1,"error":{"message":"x"}}',
        b'{"id":1,"error":{"code":"1","message":"x"}}',
        b'{"id":1,"error":{"code":1}}',
        b'{"id":1,"error":{"code":1.0,"message":"x"}}',
        b'{"id":1,"result":01}',
        b'{"id":1,"result":+1}',
        b'{"id":1,"result":1.}',
        b'{"id":1,"result":1.e5}',
        b'{"id":1,"result":1e}',
        b'{"id":1,"result":-}',
        b'{"id":1,"result":[1}}',
        b'{"id":1,"result":{"a":1]}',
        b'{"id":1,"result":"\\u00g0"}',
        b'{"id":1,"result":"aaaaaaaa\x1faaaaaaa"}',
        b'{"id":1,"result":NaN}',
        b'{"id":1,"result":"\t"}',
        b'{"id":1,"result":"\\x"}',
        b'{"id":1,"result":"\xc0\xaf"}',
        b'{"id":1,"result":"\xed\xa0\x80"}',
        b'{"id":1,"result":"\xf4\x90\x80\x80"}',
        b'\xef\xbb\xbf{"method":"m"}',
        b'{"id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":1,"result":' + b'{"a":' * 100_000,
    ],
)
def test_what_is_no_message_is_refused_in_few_words(data: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        scan(data)
    assert len(str(caught.value)) < 80
    assert f"at byte {caught.value.offset}" in str(caught.value)


def test_an_error_without_an_id_is_a_message() -> None:
    message = scan(b'{"error":{"code":-32700,"message":"Parse error","data":[]},"id":null}')
    assert (message.kind, message.id, message.id_raw, message.error_code) == (ERROR, None, b"null", -32700)


def test_the_version_can_be_required() -> None:
    scan(b'{"jsonrpc":"2.0","method":"m"}', require_version=True)
    scan(b'{"jsonrpc":"2\\u002e0","method":"m"}', require_version=True)
    with pytest.raises(FrameError, match="missing"):
        scan(b'{"method":"m"}', require_version=True)


def test_limits() -> None:
    data = b'{"method":"m"}'
    assert scan(data, max_bytes=len(data)).method == "m"
    with pytest.raises(FrameError, match="longer than"):
        scan(data, max_bytes=len(data) - 1)
    with pytest.raises(ValueError, match="4096"):
        scan(data, max_depth=4097)
    deep = b'{"id":1,"result":' + b"[" * 4095 + b"]" * 4095 + b"}"
    assert scan(deep, max_depth=4096).id == 1
    with pytest.raises(FrameError):
        scan(deep, max_depth=4095)


@pytest.mark.parametrize(
    "data", [b"[]", b"[ ]", b"[1]", b'[{"method":"m"}', b'[{"method":"m"},]', b'[{"method":"m"}] x']
)
def test_what_is_no_batch_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        scan_batch(data)


def test_a_single_message_is_a_batch_of_one_and_keeps_its_bytes() -> None:
    data = b'{"method":"m"}'
    (message,) = scan_batch(data)
    assert message.frame is data


def test_frames_are_spliced_from_their_parts() -> None:
    assert request_frame(b'"m"', b'{"a":1}', b"7") == b'{"jsonrpc":"2.0","id":7,"method":"m","params":{"a":1}}'
    assert request_frame(b'"m"', None, b'"x"') == b'{"jsonrpc":"2.0","id":"x","method":"m"}'
    assert notification_frame(b'"m"', b"[]") == b'{"jsonrpc":"2.0","method":"m","params":[]}'
    assert notification_frame(b'"m"', None) == b'{"jsonrpc":"2.0","method":"m"}'


def test_only_bytes_are_scanned() -> None:
    for wrong in ("{}", bytearray(b"{}"), None):
        with pytest.raises(TypeError):
            scan(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Message()


def test_a_message_shows_what_it_is_and_nothing_of_its_contents() -> None:
    assert repr(scan(b'{"id":1,"result":"secret"}')) == "<Message result id=1 method=None 26 bytes>"
