"""The scanner against json and msgspec: the same bytes are accepted, and the ranges hold the same values."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.examples import examples

from mcp_manager._core.jsonrpc import ERROR, NOTIFICATION, REQUEST, RESULT, FrameError, Message, scan, scan_batch

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["id", "result", '"', "\\", "\u2028", "\U0001f600", "\x7f"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)
IDS = st.one_of(st.integers(-(2**90), 2**90), st.text(max_size=8))
ERRORS = st.fixed_dictionaries(
    {"code": st.integers(-40000, 40000), "message": st.text(max_size=8)}, optional={"data": VALUES}
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"id": IDS, "result": VALUES}, optional={"jsonrpc": st.just("2.0"), "extra": VALUES}),
    st.fixed_dictionaries({"id": st.one_of(st.none(), IDS), "error": ERRORS}, optional={"jsonrpc": st.just("2.0")}),
    st.fixed_dictionaries(
        {"method": st.text(max_size=8)},
        optional={
            "id": IDS,
            "params": st.one_of(st.lists(VALUES, max_size=3), st.dictionaries(st.text(max_size=6), VALUES, max_size=3)),
            "jsonrpc": st.just("2.0"),
        },
    ),
)


def spelled(value: Any, dice: random.Random) -> str:
    """Write JSON in one of its many spellings: spaces anywhere, escapes anywhere, members in any order."""

    def space() -> str:
        return "".join(dice.choice(" \t\r\n") for _ in range(dice.choice((0, 0, 0, 1, 3))))

    def text(string: str) -> str:
        plain = json.dumps(string, ensure_ascii=False)[1:-1]
        if dice.random() < 0.3:
            plain = (
                "".join(
                    f"\\u{ord(c):04x}" if c.isascii() and c.isalnum() and dice.random() < 0.5 else c for c in string
                )
                if string.isalnum()
                else json.dumps(string)[1:-1]
            )
        return f'"{plain}"'

    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return "[" + space() + ",".join(space() + spelled(item, dice) + space() for item in value) + "]"
    if isinstance(value, dict):
        members = list(value.items())
        dice.shuffle(members)
        return (
            "{"
            + space()
            + ",".join(
                f"{space()}{text(key)}{space()}:{space()}{spelled(item, dice)}{space()}" for key, item in members
            )
            + "}"
        )
    return json.dumps(value)


def strict_json(data: bytes) -> Any:
    """Decode as RFC 8259 has it: json accepts NaN and a byte order mark beyond it, and guesses the encoding."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def msgspec_accepts(data: bytes) -> bool:
    """Tell whether msgspec takes the text for JSON.

    As ``Raw`` it skips strings without looking at their UTF-8, which is therefore checked apart. As a tree it would
    check it, but refuse numbers that are JSON: a float beyond the range of a double, an integer of 5000 digits.
    """
    try:
        data.decode("utf-8")
        msgspec.json.decode(data, type=msgspec.Raw)
    except ValueError:
        return False
    return True


def has_lone_surrogate(data: bytes) -> bool:
    """Tell whether a string anywhere, overridden members included, escapes half a surrogate pair."""
    return not is_unicode(json.dumps(json.loads(data, object_pairs_hook=list), ensure_ascii=False))


def is_json_rpc(value: Any) -> bool:
    """JSON-RPC 2.0 sections 4 and 5 on decoded data."""
    if not isinstance(value, dict) or value.get("jsonrpc", "2.0") != "2.0":
        return False
    identifier = value.get("id")
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, int | float | str)):
        return False
    if isinstance(identifier, str) and not is_unicode(identifier):
        return False
    if "method" in value:
        fits = isinstance(value["method"], str) and is_unicode(value["method"])
        return fits and isinstance(value.get("params", {}), dict | list)
    if ("result" in value) == ("error" in value):
        return False
    if "result" in value:
        return identifier is not None
    error = value["error"]
    code = error.get("code") if isinstance(error, dict) else None
    return (
        isinstance(code, int)
        and not isinstance(code, bool)
        and len(str(code)) <= 20
        and isinstance(error.get("message"), str)
    )


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def agrees(message: Message, value: dict[str, Any]) -> None:
    assert message.id == value.get("id")
    assert type(message.id) is type(value.get("id"))
    assert message.method == value.get("method")
    for name in ("params", "result", "error"):
        raw = getattr(message, name)
        assert (raw is None) == (name not in value)
        if raw is not None:
            assert json.loads(raw) == value[name]
    if "method" in value:
        assert message.kind == (REQUEST if "id" in value else NOTIFICATION)
    else:
        assert message.kind == (RESULT if "result" in value else ERROR)
        assert message.error_code == (value["error"]["code"] if "error" in value else None)
    replaced = json.loads(message.with_id(b'"new"'))
    assert replaced == {**value, "id": "new"}


MALFORMED = object()


def same_verdict(data: bytes) -> None:
    try:
        value = strict_json(data)
    except ValueError:
        value = MALFORMED
    # Escaped lone surrogates are all that the oracles differ in: json and this scanner take them, msgspec does not.
    assert msgspec_accepts(data) == (value is not MALFORMED and not has_lone_surrogate(data)), data
    expected = is_json_rpc(value)
    try:
        message = scan(data)
    except FrameError as error:
        assert not expected, (data, error)
        assert 0 <= error.offset <= len(data)
    else:
        assert expected, data
        agrees(message, value)


@given(value=MESSAGES, seed=st.integers(0, 2**32))
def test_every_spelling_of_a_message_is_located(value: dict[str, Any], seed: int) -> None:
    data = spelled(value, random.Random(seed)).encode("utf-8")
    message = scan(data)
    agrees(message, json.loads(data))
    assert message.frame == data.strip(b" \t\r\n")


@given(value=MESSAGES, seed=st.integers(0, 2**32))
def test_msgspec_finds_the_same_bytes(value: dict[str, Any], seed: int) -> None:
    data = spelled(value, random.Random(seed)).encode("utf-8")
    message, raw = scan(data), msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    for name in ("params", "result", "error"):
        assert getattr(message, name) == (bytes(raw[name]) if name in raw else None)


@settings(max_examples=examples(500))
@given(data=st.binary(max_size=60), place=st.sampled_from([b"%b", b'{"method":"%b"}', b'{"id":1,"result":%b}']))
@example(b"{}", b"\xef\xbb\xbf%b")
@example(b"\xed\xa0\x80", b'{"method":"%b"}')
@example(b"\\ud800", b'{"method":"%b"}')
@example(b"1e999", b'{"id":1,"result":%b}')
def test_arbitrary_bytes_get_the_oracles_verdict(data: bytes, place: bytes) -> None:
    same_verdict(place % data)


@settings(max_examples=examples(500))
@given(
    value=MESSAGES,
    seed=st.integers(0, 2**32),
    edits=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(["flip", "drop", "insert", "cut"]), st.integers(0, 255)),
        min_size=1,
        max_size=3,
    ),
)
def test_damaged_messages_get_the_oracles_verdict(
    value: dict[str, Any], seed: int, edits: list[tuple[int, str, int]]
) -> None:
    data = bytearray(spelled(value, random.Random(seed)).encode("utf-8"))
    for place, kind, byte in edits:
        at = place % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data[at] = byte
        elif kind == "drop":
            del data[at : at + 1 + byte % 4]
        elif kind == "insert":
            data[at:at] = bytes([b'{}[],:"\\0-+.eEtfnu \n'[byte % 20]])
        elif kind == "cut":
            del data[at:]
    same_verdict(bytes(data))


TOKENS = ["{", "}", "[", "]", ",", ":", '"a"', "1", "0", "-", ".", "e", "E", "+", "true", "false", "null", "nul", " "]


@settings(max_examples=examples(500))
@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=10))
def test_values_are_judged_by_the_grammar(tokens: list[str]) -> None:
    same_verdict(b'{"id":1,"result":' + "".join(tokens).encode() + b"}")


@settings(max_examples=examples(500))
@given(tokens=st.lists(st.sampled_from(["0", "1", "23", "-", "+", ".", "e", "E"]), max_size=6))
def test_numbers_are_judged_by_the_grammar(tokens: list[str]) -> None:
    same_verdict(b'{"id":1,"result":[' + "".join(tokens).encode() + b"]}")


@settings(max_examples=examples(500))
@given(brackets=st.lists(st.sampled_from(["[", "]", '{"a":', "}", "0", ","]), max_size=12))
def test_brackets_are_matched(brackets: list[str]) -> None:
    same_verdict(b'{"id":1,"result":[' + "".join(brackets).encode() + b"]}")


@settings(max_examples=examples(300))
@given(
    openings=st.lists(st.sampled_from("[{"), max_size=40),
    damage=st.one_of(st.none(), st.tuples(st.integers(0, 39), st.sampled_from(["swap", "drop", "double"]))),
)
@example(openings=list("[{[{[{[{[{[{[{[{[{[{"), damage=None)
@example(openings=list("[{[{[{[{[{[{[{[{[{[{"), damage=(9, "swap"))
def test_every_level_is_closed_by_its_own_bracket(openings: list[str], damage: tuple[int, str] | None) -> None:
    closings = ["]" if opening == "[" else "}" for opening in reversed(openings)]
    if damage is not None and closings:
        at = damage[0] % len(closings)
        other = "}" if closings[at] == "]" else "]"
        closings[at] = {"swap": other, "drop": "", "double": closings[at] * 2}[damage[1]]
    text = "".join("[" if opening == "[" else '{"a":' for opening in openings) + "0" + "".join(closings)
    same_verdict(b'{"id":1,"result":' + text.encode() + b"}")


MEMBERS = st.tuples(
    st.sampled_from(['"id"', '"result"', '"error"', '"method"', '"params"', '"jsonrpc"', '"\\u0069d"', '"x"']),
    st.sampled_from(
        [
            "1",
            '"a"',
            "null",
            "true",
            "{}",
            "[]",
            '"2.0"',
            '"1.0"',
            '{"code":-1,"message":"m"}',
            '{"code":1.5,"message":"m"}',
            '{"message":"m","code":1,"code":"x"}',
            '{"c\\u006fde":2,"message":"m"}',
        ]
    ),
)


@settings(max_examples=examples(500))
@given(members=st.lists(MEMBERS, max_size=5), ending=st.sampled_from(["", "", "", ",", " ", ",,"]))
def test_members_in_any_number_and_order(members: list[tuple[str, str]], ending: str) -> None:
    same_verdict(("{" + ",".join(f"{name}:{value}" for name, value in members) + ending + "}").encode())


PIECES = st.one_of(
    st.sampled_from(
        [
            b"\xc0\xaf",
            b"\xc1\x80",
            b"\xe0\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"\x80",
            b"\xc3",
            b"\xe2\x82",
            b"\xf0\x9f\x98",
            "é€\U0001f600\uffff\ud7ff".encode(),
            b"\x00",
            b"\x1f",
            b"\t",
            b"\n",
            b"\x7f",
            b"\\",
            b"\\u",
            b"\\u00e",
            b"\\u00e9",
            b"\\uD83D\\uDE00",
            b"\\x",
            b"\\/",
            b'\\"',
            b'"',
            b"aaaaaaa",
            b"aaaaaaaa",
            b" ",
        ]
    ),
    st.binary(max_size=2),
)


@settings(max_examples=examples(500))
@given(pieces=st.lists(PIECES, max_size=5), place=st.sampled_from(["value", "name", "id", "method"]))
def test_strings_are_judged_byte_by_byte(pieces: list[bytes], place: str) -> None:
    text = b'"' + b"".join(pieces) + b'"'
    same_verdict(
        {
            "value": b'{"id":1,"result":' + text + b"}",
            "name": b'{"id":1,"result":{' + text + b":0}}",
            "id": b'{"result":0,"id":' + text + b"}",
            "method": b'{"method":' + text + b"}",
        }[place]
    )


@given(values=st.lists(MESSAGES, min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_a_batch_is_its_messages(values: list[dict[str, Any]], seed: int) -> None:
    dice = random.Random(seed)
    parts = [spelled(value, dice) for value in values]
    messages = scan_batch((" [" + " , ".join(parts) + "] ").encode("utf-8"))
    assert len(messages) == len(values)
    for message, part in zip(messages, parts, strict=True):
        agrees(message, json.loads(part))
        assert json.loads(message.frame) == json.loads(part)


@given(depth=st.integers(1, 700), opening=st.sampled_from(["[", '{"a":']))
def test_depth_is_counted_exactly(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    data = ('{"id":1,"result":' + opening * depth + "0" + closing * depth + "}").encode()
    limit = depth + 1
    assert scan(data, max_depth=limit).id == 1
    try:
        scan(data, max_depth=limit - 1)
    except FrameError as error:
        assert "deep" in error.reason
    else:
        raise AssertionError("one level too many was accepted")
