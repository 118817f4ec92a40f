"""Replies read by blocks: what is refused wherever it stands in a block, and that every path says the same."""

from __future__ import annotations

import json

import pytest
from support.json_delimiting import Refused, delimited, read_result, scanning_by

from mcp_manager._core.jsonrpc import (
    ERROR,
    FrameError,
    scan,
    scan_batch,
    scan_replies,
    scan_reply,
    use_vector_path,
    vector_path,
    vector_paths,
)

HEAD = b'{"jsonrpc":"2.0","id":1,"result":'


def test_there_is_always_a_portable_path_and_the_last_one_is_used() -> None:
    assert vector_paths()[0] == "portable"
    assert vector_path() == vector_paths()[-1]
    with scanning_by("portable"):
        assert vector_path() == "portable"
    assert vector_path() == vector_paths()[-1]


@pytest.mark.parametrize("name", ["", "sse2", "x" * 9999])
def test_a_path_that_is_not_there_is_refused_in_few_words(name: str) -> None:
    before = vector_path()
    with pytest.raises(ValueError, match="no scan") as caught:
        use_vector_path(name)
    assert len(str(caught.value)) < 120
    assert vector_path() == before


@pytest.mark.parametrize(
    "value",
    [
        b"{}",
        b"[]",
        b"[{}]",
        b'{"a":[{"b":[]},{}],"c":{}}',
        b'["}","]","{[","\\"]","\\\\",{"\\\\\\"}":"]"}]',
        '{"é€\U0001f600":"\uffff\ud7ff\U0010ffff\x7f"}'.encode(),
        b'{\t"a" :\r\n[ -1.5E+7 , true,false , null ] }',
        # Not JSON, but delimited: whoever decodes the value says so.
        b"[1 2]",
        b"[,]",
        b'{"a" 1}',
        b"[01]",
        b"[nul]",
        b'["\\x","\\u12"]',
        b"{1:2}",
    ],
)
@pytest.mark.parametrize("tail", [b"}", b' , "x" :"y"} '])
def test_a_value_is_cut_out_wherever_it_stands(value: bytes, tail: bytes) -> None:
    for shift in range(200):
        room = b" " * (shift // 2) + b"0" * (shift - shift // 2)
        for shifted in (value[:1] + room + value[1:], value[:1] + b'"%b"' % room + value[1:]):
            assert read_result(HEAD + shifted + tail) == shifted


@pytest.mark.parametrize("value", [b"[1 2]", b"[,]", b'{"a" 1}', b"[01]", b"[nul]", b'["\\x"]', b"{1:2}"])
def test_what_is_sent_is_validated_in_full(value: bytes) -> None:
    assert read_result(HEAD + value + b"}") == value
    with pytest.raises(FrameError):
        scan(HEAD + value + b"}")
    with pytest.raises(FrameError):
        scan_batch(HEAD + value + b"}")


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (b"}", "closing bracket"),
        (b"{]", "closing bracket"),
        (b'{"a":[}', "closing bracket"),
        (b"[[[[[[[[{]]]]]]]]]", "closing bracket"),
        (b'["]', "unterminated"),
        (b'"\\"]', "unterminated"),
        (b'"\\\\\\"]', "unterminated"),
        (b'"\n"', "control"),
        (b'"\t"', "control"),
        (b'"\x00"', "control"),
        (b'"\x1f"', "control"),
        (b'"\\\n"', "control"),
        (b"\x00", "value"),
        (b"\x0b", "value"),
        (b"\x1f", "value"),
        (b"NaN", "value"),
        (b"Infinity", "value"),
        (b"<html>", "value"),
        (b"True", "value"),
        (b"'a'", "value"),
        (b"\\", "value"),
        (b'\\"', "value"),
        (b"/", "value"),
        (b"\x7f", "value"),
        (b"\x80", "value"),
        (b"\xa2", "value"),
        (b"\xdb", "value"),
        (b"\xfb", "value"),
        (b"\xdd", "value"),
        (b"\xef\xbb\xbf", "value"),
        ("é".encode(), "value"),
        (b'"\x80"', "UTF-8"),
        (b'"\xc3"', "UTF-8"),
        (b'"\xc3\\"]', "UTF-8"),
        (b'"\xe2\x82"', "UTF-8"),
        (b'"\xf0\x9f\x98"', "UTF-8"),
        (b'"\xc0\xaf"', "UTF-8"),
        (b'"\xe0\x9f\xbf"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xf0\x8f\xbf\xbf"', "UTF-8"),
        (b'"\xf4\x90\x80\x80"', "UTF-8"),
        (b'"\xf5\x80\x80\x80"', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        ('"é'.encode() + b'\x80"', "UTF-8"),
    ],
)
def test_what_does_not_belong_is_refused_wherever_it_stands(inside: bytes, reason: str) -> None:
    for shift in (*range(140), 1000, 1001, 5000, 5063):
        for room in (b"0" * shift, b'"%b"' % (b"a" * shift), b'"%b",' % ("é".encode() * shift)):
            for after in (b"]}", b",0]}", b"%b]}" % (b" " * 70), b'"%b"]}' % (b"a" * 70)):
                data = HEAD + b"[" + room + inside + after
                outcome = read_result(data)
                assert isinstance(outcome, Refused), data
                assert reason in outcome.reason or (b'"' in after and "value" not in reason), data


def test_every_byte_has_its_place_outside_strings() -> None:
    for byte in range(256):
        value = b"[%c]" % byte
        expected = value if delimited(value) == len(value) else None
        for shift in range(70):
            outcome = read_result(HEAD + b" " * shift + value + b"}")
            assert outcome == expected or (expected is None and isinstance(outcome, Refused)), value


@pytest.mark.parametrize("length", [*range(1, 70), 127, 128, 129, 200, 1000])
def test_backslashes_count_in_pairs_across_blocks(length: int) -> None:
    for shift in range(130):
        value = b'["%b%b"]' % (b"a" * shift, b"\\" * length)
        outcome = read_result(HEAD + value + b"}")
        assert outcome == value if length % 2 == 0 else isinstance(outcome, Refused)
        value = b'["%b%b",{}]' % (b"a" * shift, b"\\" * length + b'"' * (length % 2))
        assert read_result(HEAD + value + b"}") == value


# Text is read in long strides once it has gone on for a kilobyte.
FAR = (1020, *range(1120, 1190), *range(1500, 1780))


@pytest.mark.parametrize(
    "inside",
    [b"\n", b"\x1f", b"\x00", b'"', b"\x80", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xff", b'\\\\"', b'\\"\n'],
)
def test_what_does_not_belong_is_refused_far_into_a_text(inside: bytes) -> None:
    for shift in FAR:
        for unit in (b"a", b"lines of \\n\\n fourteen"):
            room = (unit * (shift // len(unit) + 1))[:shift].rstrip(b"\\").ljust(shift, b"a")
            value = b'["%b%b%b"]' % (room, inside, b"a" * 600)
            assert isinstance(read_result(HEAD + value + b"}"), Refused), (unit, shift)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 62, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 513, 2001])
def test_backslashes_count_in_pairs_far_into_a_text(length: int) -> None:
    for shift in FAR:
        for after in (b"", b"a" * 600):
            value = b'["%b%b%b"]' % (b"a" * shift, b"\\" * length, after)
            outcome = read_result(HEAD + value + b"}")
            assert outcome == value if length % 2 == 0 or after else isinstance(outcome, Refused)
            value = b'["%b%b%b",{}]' % (b"a" * shift, b"\\" * length + b'"' * (length % 2), after)
            assert read_result(HEAD + value + b"}") == value


def test_letters_far_into_a_text_must_be_whole() -> None:
    for shift in FAR:
        for letter in ("é".encode(), "€".encode(), "\U0001f600".encode()):
            for after in (b"a" * 70, b"a" * 600):
                value = b'["%b%b%b"]' % (b"a" * shift, letter, after)
                assert read_result(HEAD + value + b"}") == value
                value = b'["%b%b%b"]' % (b"a" * shift, letter[:-1], after)
                assert isinstance(read_result(HEAD + value + b"}"), Refused)


@pytest.mark.parametrize("letter", ["é", "€", "\U0001f600"])
def test_letters_may_lie_across_blocks_and_must_be_whole(letter: str) -> None:
    encoded = letter.encode()
    for shift in range(140):
        value = b'["%b%b%b"]' % (b"a" * shift, encoded, b"a" * 70)
        assert read_result(HEAD + value + b"}") == value
        for after in range(50, 66):
            value = b'["%b%b%b"]' % (b"a" * shift, encoded, b"a" * after)
            assert read_result(HEAD + value + b"}") == value
        for cut in range(1, len(encoded)):
            for part in (encoded[:cut], encoded[cut:]):
                for after in (b"", b"a" * 70, b"a" * 200):
                    value = b'["%b%b%b"]' % (b"a" * shift, part, after)
                    outcome = read_result(HEAD + value + b"}")
                    assert isinstance(outcome, Refused)
                    assert outcome.reason == "invalid UTF-8"


def test_no_prefix_of_a_reply_is_one() -> None:
    rows = [{"id": number, "ключ": f'"{number}"\\', "tags": ["a", {"b": "[]"}]} for number in range(40)]
    data = HEAD + json.dumps(rows, ensure_ascii=False).encode() + b"}"
    assert read_result(data) == data[len(HEAD) : -1]
    for length in range(len(data)):
        outcome = read_result(data[:length])
        assert isinstance(outcome, Refused)
        assert outcome.offset <= length


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [1, 2, 4, 31, 32, 33, 59, 60, 61, 63, 64, 65, 92, 93, 127, 128, 129, 2047])
def test_levels_are_counted_and_matched_at_any_depth(opening: bytes, depth: int) -> None:
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[opening]
    levels = depth * len(closing)
    for inside in (b"0", b"0," * 300, b'"%b"' % (b"a" * 300), b"[],{}," * 100):
        extra = 1 if b"[" in inside else 0
        value = opening * depth + inside + closing * depth
        assert read_result(HEAD + value + b"}", levels + 1 + extra) == value
        outcome = read_result(HEAD + value + b"}", levels + extra)
        assert isinstance(outcome, Refused)
        assert outcome.reason == "nested too deeply"
        for place in range(0, depth, max(1, depth // 7)):
            ends = bytearray(closing * depth)
            ends[place] = ends[place] ^ ord("]") ^ ord("}")
            outcome = read_result(HEAD + opening * depth + inside + ends + b"}", 4096)
            assert isinstance(outcome, Refused)
            assert outcome.offset == len(HEAD + opening * depth + inside) + place


@pytest.mark.parametrize("levels", [1, 2, 3, 20, 31, 32, 57, 58, 59, 60, 61, 62, 63, 64, 65, 90, 200])
def test_levels_are_counted_far_into_a_value(levels: int) -> None:
    for way in (b"0," * 300, b"[]," * 300, b"0," * 3000):
        for opening, closing in ((b"[", b"]"), (b'[ "aaaa", ', b',"bbbb"]'), (b'{"a":', b"}")):
            value = b"[" + way + opening * levels + way + closing * levels + b"]"
            extra = 1 if b"[" in way else 0
            assert read_result(HEAD + value + b"}", levels + 2 + extra) == value
            outcome = read_result(HEAD + value + b"}", levels + 1 + extra)
            assert isinstance(outcome, Refused)
            assert outcome.reason == "nested too deeply"


def test_the_deepest_message_goes_up_and_down() -> None:
    value = b"[" * 4095 + b"]" * 4000 + b'{"a":[' * 2000 + b"]}" * 2000 + b"]" * 95
    assert read_result(HEAD + value + b"}", 4096) == value
    assert isinstance(read_result(HEAD + value + b"}", 4095), Refused)
    with pytest.raises(ValueError, match="4096"):
        scan_reply(b"{}", max_depth=4097)


def test_nothing_is_read_on_behalf_of_what_follows_the_value() -> None:
    """What is wrong behind a value is told as such, by its own words and place."""
    for shift in range(70):
        data = HEAD + b'{"a":"%b"},"x":"\xff"}' % (b"a" * shift)
        assert read_result(data) == Refused("invalid UTF-8", data.index(b"\xff"))
        data = HEAD + b'{"a":"%b"}<' % (b"a" * shift)
        assert read_result(data) == Refused("expected ',' or '}'", len(data) - 1)
        data = HEAD + b'{"a":"%b"}]}' % (b"a" * shift)
        assert read_result(data) == Refused("expected ',' or '}'", len(data) - 2)


@pytest.mark.parametrize("path", vector_paths())
@pytest.mark.parametrize(
    "data",
    [
        b'{"id":1,"result":01}',
        b'{"id":1,"result":nul}',
        b'{"id":1,"result":{},}',
        b'{"id":1 "result":{}}',
        b'{"id":1,"result" {}}',
        b'{"id":[],"result":{}}',
        b'{"id":{},"result":{}}',
        b'{"id":01,"result":{}}',
        b'{"id":1,"result":{},"x":"\\x"}',
        b'{"id":1,"result":{},"\\x":1}',
        b'{"result":{}}',
        b'{"id":1,"result":{},"error":{"code":1,"message":""}}',
        b'{"id":1,"error":[]}',
        b'{"id":1,"error":{"code":1,"message":"","data":[1 2]}}',
        b'{"id":1,"\\u0065rror":{"code":1,"message":"","data":[1 2]}}',
        b'{"id":1,"error":{"code":01,"message":""}}',
        b'{"id":1,"error":{"code":1,"message":"\\x"}}',
        b'{"id":1,"error":{"code":1,"message":""',
        b'{"id":1,"result":{}} x',
        b'{"id":1,"result":{}',
        b'{"id":1,"result":{',
        b'{"id":1,"result":[',
        b'{"method":[]}',
        b'{"method":"m","params":1}',
        b"[]",
        b"",
    ],
)
def test_the_envelope_and_errors_are_judged_as_by_scan(data: bytes, path: str) -> None:
    with pytest.raises(FrameError) as expected:
        scan(data)
    with scanning_by(path), pytest.raises(FrameError) as caught:
        scan_reply(data)
    if not data.endswith((b"{", b"[")):
        assert (caught.value.reason, caught.value.offset) == (expected.value.reason, expected.value.offset)


@pytest.mark.parametrize("path", vector_paths())
def test_replies_come_alone_or_in_a_batch(path: str) -> None:
    parts = [
        b'{"jsonrpc":"2.0","id":1,"result":{"a":[]}}',
        b'{"jsonrpc":"2.0","id":2,"error":{"code":3,"message":"","data":[{}]}}',
        b'{"jsonrpc":"2.0","id":"x","method":"m","params":{"a":"]"}}',
        b'{"jsonrpc":"2.0","method":"n","params":[]}',
    ]
    with scanning_by(path):
        messages = scan_replies(b" [" + b" ,\n".join(parts) + b"]\n")
        (alone,) = scan_replies(parts[0], max_bytes=len(parts[0]), max_depth=3)
        assert scan_replies(b"[" + parts[0] + b"]", max_depth=4)[0].id == 1
        for wrong in (b"[]", b"[1]", b"[%b" % parts[0], b"[%b,]" % parts[0], b"[[%b]]" % parts[0], b"[{}]"):
            with pytest.raises(FrameError):
                scan_replies(wrong)
        with pytest.raises(FrameError, match="deeply"):
            scan_replies(b"[" + parts[0] + b"]", max_depth=3)
        with pytest.raises(FrameError, match="longer"):
            scan_replies(parts[0], max_bytes=len(parts[0]) - 1)
        with pytest.raises(FrameError, match="longer"):
            scan_reply(parts[0], max_bytes=len(parts[0]) - 1)
    assert [message.frame for message in messages] == parts
    assert alone.frame is parts[0]
    assert messages[1].kind == ERROR
    assert messages[2].params == b'{"a":"]"}'


@pytest.mark.parametrize("path", vector_paths())
def test_the_last_of_several_members_counts(path: str) -> None:
    with scanning_by(path):
        message = scan_reply(b'{"id":1,"result":{"a":1},"r\\u0065sult":[2],"id":2}')
    assert (message.id, message.result) == (2, b"[2]")


def test_only_bytes_are_scanned() -> None:
    for wrong in ("{}", bytearray(b"{}"), None):
        with pytest.raises(TypeError):
            scan_reply(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            scan_replies(wrong)  # type: ignore[arg-type]
