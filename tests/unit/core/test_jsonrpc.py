"""The scanner's edges: ids, duplicate members, limits, splicing."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator

import pytest

from mcp_manager._core.jsonrpc import (
    ERROR,
    NOTIFICATION,
    REQUEST,
    RESULT,
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


@pytest.mark.parametrize("raw", [b"true", b"{}", b"[]", b"9" * 641, b'"\\ud800"'])
def test_what_is_no_id_is_refused(raw: bytes) -> None:
    with pytest.raises(FrameError, match="id "):
        scan(b'{"method":"m","id":' + raw + b"}")


def test_a_long_id_is_read_whatever_the_interpreters_limit() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert scan(b'{"method":"m","id":' + b"9" * 640 + b"}").id == 10**640 - 1
        with pytest.raises(FrameError, match="too many digits"):
            scan(b'{"method":"m","id":' + b"9" * 700 + b"}")
    finally:
        sys.set_int_max_str_digits(limit)


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
        b'{"id":1,"error":{"code":1e3,"message":"x"}}',
        b'{"id":1,"error":{"code":123456789012345.12345,"message":"x"}}',
        b'{"id":1,"error":{"code":123456789012345678901,"message":"x"}}',
        b'{"id":1,"error":{"code":1,"code":null,"message":"x"}}',
        b'{"id":1,"error":{"code":1,"message":2}}',
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


@pytest.mark.parametrize("literal", [b"true", b"false", b"null"])
def test_literals_are_spelled_in_full(literal: bytes) -> None:
    assert scan(b'{"id":1,"result":%b}' % literal).result == literal
    wrong = [literal[:at] + b"x" + literal[at + 1 :] for at in range(len(literal))]
    wrong += [literal[:at] for at in range(len(literal))]
    for spelling in [*wrong, literal + literal[-1:], literal.upper(), literal.title()]:
        with pytest.raises(FrameError):
            scan(b'{"id":1,"result":%b}' % spelling)


def utf8_sequences() -> Iterator[bytes]:
    """Every pair of bytes, and every longer sequence with its bytes at the edges of what may follow."""
    edges = (0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)
    for lead in range(0x80, 0x100):
        yield bytes((lead,))
        for second in range(0x20, 0x100):
            yield bytes((lead, second))
    for lead, *others in itertools.product(range(0xE0, 0x100), edges, edges):
        yield bytes((lead, *others))
    for lead, *others in itertools.product(range(0xEF, 0x100), edges, edges, edges):
        yield bytes((lead, *others))


@pytest.mark.parametrize("letters", [b"", b"aaaaaaaa", "é€\U0001f600".encode()], ids=["alone", "ascii", "beyond"])
def test_utf8_is_judged_as_by_the_strict_decoder(letters: bytes) -> None:
    for sequence in utf8_sequences():
        # These two end or escape the string; they belong to other tests.
        if b'"' in sequence or b"\\" in sequence:
            continue
        data = b'{"id":1,"result":"%b%b%b"}' % (letters, sequence, letters)
        try:
            expected = sequence.decode("utf-8") is not None
        except UnicodeDecodeError:
            expected = False
        try:
            accepted = scan(data).id == 1
        except FrameError:
            accepted = False
        assert accepted == expected, sequence


def test_an_error_without_an_id_is_a_message() -> None:
    message = scan(b'{"error":{"code":-32700,"message":"Parse error","data":[]},"id":null}')
    assert (message.kind, message.id, message.id_raw, message.error_code) == (ERROR, None, b"null", -32700)


@pytest.mark.parametrize("code", [0, -32700, 10**18 - 1, 10**18, -(2**63), 2**64])
def test_error_codes_keep_their_value(code: int) -> None:
    assert scan(b'{"id":1,"error":{"message":"x","code":%d}}' % code).error_code == code


def test_only_an_error_has_a_code() -> None:
    for data in (b'{"id":1,"result":{"code":5}}', b'{"id":1,"method":"m","error":{"code":5,"message":"x"}}'):
        assert scan(data).error_code is None


def test_no_prefix_of_a_message_is_a_message() -> None:
    data = '{"id":-1.5e+7,"x":[true,false,null,{"é€😀":"\\u00e9\\n"}],"jsonrpc":"2.0","result":{}}'.encode()
    assert scan(data).result == b"{}"
    for length in range(len(data)):
        with pytest.raises(FrameError) as caught:
            scan(data[:length])
        assert caught.value.offset <= length


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
    "data",
    [
        b"",
        b"[]",
        b"[ ]",
        b"[1]",
        b"[",
        b'[{"method":"m"}',
        b'[{"method":"m"},]',
        b'[,{"method":"m"}]',
        b'[{"method":"m"}{"method":"m"}]',
        b'[{"method":"m"}] x',
        b'[[{"method":"m"}]]',
        b'[{"method":"m"},{"method":1}]',
        b"[" * 100_000,
    ],
)
def test_what_is_no_batch_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        scan_batch(data)


def test_a_batch_is_a_level_of_nesting() -> None:
    assert scan_batch(b'[{"method":"m","params":[]}]', max_depth=3)[0].method == "m"
    with pytest.raises(FrameError, match="deeply"):
        scan_batch(b'[{"method":"m","params":[]}]', max_depth=2)


def test_a_batch_has_messages_of_every_kind_with_their_own_bytes() -> None:
    parts = [
        b'{"id":1,"result":[]}',
        b'{"id":2,"error":{"code":3,"message":""}}',
        b'{"id":"x","method":"m"}',
        b'{"method":"n"}',
    ]
    messages = scan_batch(b" [" + b" ,\n".join(parts) + b"]\n")
    assert [message.frame for message in messages] == parts
    assert [message.kind for message in messages] == [RESULT, ERROR, REQUEST, NOTIFICATION]
    assert messages[2].with_id(b"9") == b'{"id":9,"method":"m"}'
    assert messages[3].with_id(b"9") == b'{"id":9,"method":"n"}'


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
    assert len(repr(scan(b'{"method":"%s","id":"%s"}' % (b"m" * 9999, b"i" * 9999)))) < 300
    assert repr(scan(b'{"id":1,"result":"secret"}')) == "<Message result id=1 method=None 26 bytes>"


@pytest.mark.parametrize(
    "take",
    [
        lambda message: message.take_frame(),
        lambda message: message.take_frame(b"7"),
        lambda message: message.take_text(),
        lambda message: message.take_text(b"7"),
        lambda message: message.recycle(),
    ],
)
@pytest.mark.parametrize("size", [3, 5000, 50_000])
def test_a_message_that_was_taken_is_empty(take: Callable[[Message], object], size: int) -> None:
    message = scan(b'{"id":1,"result":"%b"}' % (b"x" * size))
    take(message)
    for part in (message.id_raw, message.result, message.result_buffer, message.method_raw, message.params):
        assert part is None
    assert message.frame == message.take_frame() == b""
    assert message.take_text() == ""
    assert "0 bytes" in repr(message)


@pytest.mark.parametrize("take", [Message.take_frame, Message.take_text])
def test_a_long_frame_that_somebody_holds_is_not_written_over(take: Callable[[Message, bytes], str | bytes]) -> None:
    held = b'{"id":12345,"result":"%b"}' % (b"x" * 50_000)
    before = bytearray(held)
    assert json.loads(take(scan(held), b"7"))["id"] == 7
    assert held == before
