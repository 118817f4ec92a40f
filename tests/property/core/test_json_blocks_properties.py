"""Replies read by blocks against a stack and a regular expression, against scan(), and every path against the others."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.json_delimiting import Refused, delimited, read_result, scanning_by

from mcp_manager._core.jsonrpc import FrameError, Message, scan, scan_reply, vector_paths

HEAD = b'{"id":1,"result":'
MEMBERS = ("kind", "id", "id_raw", "method", "method_raw", "params", "result", "error", "error_code", "frame")

PLAIN = st.sampled_from([b"0", b"null", b" ", b", ", b'"a":', b'"ab"', b"-1.5e+7,", b"\r\n\t", b"true,"])
STRINGS = st.sampled_from(
    [b'"', b'\\"', b"\\", b"\\\\", b"]", b"}", b"{", b"[", b"a", "é".encode(), "€".encode(), "\U0001f600".encode()]
)
RUNS = st.builds(
    lambda piece, times: piece * times,
    st.sampled_from([b" ", b"a", b"\\", b'"', b"\\\\", b'\\"', b"[]", b"{}", b"[", "é".encode(), "€".encode(), b"0,"]),
    st.one_of(
        st.integers(0, 9), st.integers(55, 75), st.integers(120, 135), st.integers(0, 700), st.integers(1000, 3000)
    ),
)
WRONG = st.sampled_from([b"\x00", b"\n", b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90", b"<", b"N"])


@st.composite
def nested(draw: st.DrawFn, depth: int = 0) -> bytes:
    """An object or array in which nearly anything stands, its brackets and strings in order."""
    opening, closing = draw(st.sampled_from([(b"[", b"]"), (b"{", b"}")]))
    parts = []
    for kind in draw(st.lists(st.sampled_from(["plain", "text", "long", "spaces", "inner"]), max_size=6)):
        if kind == "plain":
            parts.append(draw(PLAIN))
        elif kind == "text":
            parts.append(json.dumps(draw(st.text(max_size=8)), ensure_ascii=draw(st.booleans())).encode())
        elif kind == "long":
            letter = draw(st.sampled_from(["a", "é", "€", "\U0001f600", "\\\\", '\\"', "]", "{"]))
            parts.append(b'"%b"' % (letter * draw(st.integers(0, 200))).encode())
        elif kind == "spaces":
            parts.append(b" " * draw(st.integers(0, 130)))
        elif depth < 5:
            parts.append(draw(nested(depth + 1)))
    return opening + b"".join(parts) + closing


def same_verdict(value: bytes, max_depth: int = 512) -> None:
    """Compare what is made of a value with what the stack says, if the value is the whole of the text or wrong."""
    outcome = read_result(HEAD + value + b"}", max_depth)
    end = delimited(value, max_depth - 1)
    if end is None:
        assert isinstance(outcome, Refused), value
    elif end == len(value):
        assert outcome == value


@settings(max_examples=examples(300))
@given(value=nested(), tail=st.sampled_from([b"}", b" }", b',"a":1}']))
def test_what_is_delimited_is_cut_out(value: bytes, tail: bytes) -> None:
    assert delimited(value, 511) == len(value)
    assert read_result(HEAD + value + tail) == value


@settings(max_examples=examples(500))
@given(value=nested(), place=st.integers(0, 10_000), wrong=st.one_of(WRONG, STRINGS, st.binary(min_size=1, max_size=2)))
def test_one_mistake_is_judged_alike(value: bytes, place: int, wrong: bytes) -> None:
    at = place % len(value) + 1
    same_verdict(value[:at] + wrong + value[at:])
    same_verdict(value[:at] + wrong + value[at + len(wrong) :])
    same_verdict(value[:at] + value[at + 1 :])


@settings(max_examples=examples(500))
@given(parts=st.lists(st.one_of(PLAIN, STRINGS, RUNS, RUNS, WRONG), max_size=10), opening=st.sampled_from([b"[", b"{"]))
@example(parts=[b"\xdd"], opening=b"[")
@example(parts=[b'"', b"\\" * 63, b'"', b"]"], opening=b"[")
def test_anything_is_judged_alike(parts: list[bytes], opening: bytes) -> None:
    value = opening + b"".join(parts)
    same_verdict(value)
    same_verdict(value + (b"]" if opening == b"[" else b"}"))
    same_verdict(value + (b'"]' if opening == b"[" else b'"}'))


@settings(max_examples=examples(300))
@given(data=st.binary(max_size=200), string=st.booleans())
def test_arbitrary_bytes_are_judged_alike(data: bytes, string: bool) -> None:
    same_verdict(b'["%b"]' % data if string else b"[%b]" % data)


@settings(max_examples=examples(200))
@given(
    runs=st.lists(st.tuples(st.sampled_from("[{"), st.integers(1, 70), st.integers(0, 70)), min_size=1, max_size=8),
    room=st.sampled_from(["", " ", "0," * 20, '"' + "a" * 80 + '"']),
    limit=st.integers(1, 300),
)
def test_levels_go_up_and_down(runs: list[tuple[str, int, int]], room: str, limit: int) -> None:
    levels, text = [], ""
    for opening, up, down in runs:
        levels += [opening] * up
        text += opening * up + room
        for _ in range(min(down, len(levels) - 1)):
            text += {"[": "]", "{": "}"}[levels.pop()]
        text += room
    text += "".join({"[": "]", "{": "}"}[level] for level in reversed(levels))
    value = text.encode()
    assert delimited(value, 4095) == len(value)
    assert read_result(HEAD + value + b"}", 4096) == value
    same_verdict(value, limit)
    swapped = value.translate(bytes.maketrans(b"]}", b"}]"))
    assert isinstance(read_result(HEAD + swapped + b"}", 4096), Refused)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(SCALARS, st.text(max_size=90)),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=6), inner, max_size=6)),
    max_leaves=40,
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": st.integers(), "result": VALUES}, optional={"x": VALUES}),
    st.fixed_dictionaries(
        {
            "jsonrpc": st.just("2.0"),
            "id": st.text(max_size=8).filter(lambda text: not text.isdigit()),
            "error": st.fixed_dictionaries({"code": st.integers(-40000, 40000), "message": st.text(), "data": VALUES}),
        }
    ),
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "method": st.text(max_size=8), "params": st.lists(VALUES)},
        optional={"id": st.integers()},
    ),
)


def parts_of(message: Message) -> list[Any]:
    return [getattr(message, name) for name in MEMBERS]


@pytest.mark.parametrize("path", vector_paths())
@given(value=MESSAGES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]), times=st.integers(1, 40))
def test_json_is_cut_up_as_by_scan(
    path: str, value: dict[str, Any], ascii_only: bool, indent: int | None, times: int
) -> None:
    if "result" in value:
        value["result"] = [value["result"]] * times
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    try:
        expected = parts_of(scan(data))
    except FrameError as error:
        with scanning_by(path), pytest.raises(FrameError) as caught:
            scan_reply(data)
        assert (caught.value.reason, caught.value.offset) == (error.reason, error.offset)
        return
    with scanning_by(path):
        assert parts_of(scan_reply(data)) == expected


def random_value(dice: random.Random, size: int) -> bytes:
    """Write some kilobytes of an array, now dense with brackets, now with text, now with letters beyond ASCII."""
    levels, parts = ["]"], ["["]
    while sum(map(len, parts[-50:])) < size and len(parts) < 400:
        kind = dice.random()
        if kind < 0.35:
            opening = dice.choice("[{")
            parts.append(opening)
            levels.append("]" if opening == "[" else "}")
        elif kind < 0.65 and len(levels) > 1:
            parts.append(levels.pop())
        elif kind < 0.8:
            parts.append(dice.choice(["1", ",", ":", "true", " ", "\n", "-0.5e1"]) * dice.choice((1, 1, 3, 40)))
        else:
            letter = dice.choice(["a", "a", "\\\\", '\\"', "\\n", "é", "字", "😀", "]", "{"])
            parts.append('"' + "b" * dice.randrange(70) + letter * dice.choice((0, 1, 2, 31, 64, 200)) + '"')
    return ("".join(parts) + "".join(reversed(levels))).encode()


@settings(max_examples=examples(200))
@given(seed=st.integers(0, 2**32))
def test_long_values_are_judged_alike(seed: int) -> None:
    dice = random.Random(seed)
    value = random_value(dice, dice.choice((500, 3000, 20_000)))
    same_verdict(value)
    for _ in range(8):
        at = dice.randrange(1, len(value))
        byte = dice.choice(b'"\\[]{}\x00\nax\x80\xc3\xe2\xf0\xdd\xfb\xa2 ')
        same_verdict(value[:at] + bytes([byte]) + value[at + 1 :])
        same_verdict(value[:at] + value[at + 1 :])
