"""What is overlooked in a server's JSON, against json.loads as an oracle."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.json_delimiting import scanning_by

from mcp_manager._core.jsonrpc import FrameError, scan_reply, vector_paths
from mcp_manager._core.mending import says_default, without_constants, without_lone_surrogates
from mcp_manager.protocol.json_reading import LONE_SURROGATES, OUT_OF_RANGE, JsonDecoder

# Letters of every width, halves of pairs, and what escapes.
TEXT = st.text(
    st.one_of(st.characters(), st.integers(0xD800, 0xDFFF).map(chr), st.sampled_from('\\"\n\0u')), max_size=12
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.just(math.inf),
    st.just(-math.inf),
    TEXT,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXT, inner, max_size=5)),
    max_leaves=15,
)
decoder: JsonDecoder[Any] = JsonDecoder(Any)
raw_decoder = JsonDecoder(dict[str, msgspec.Raw])


def written(value: Any) -> bytes:
    """Write it as Python servers do, but for infinity, which JSON has as a number that is too large."""
    return json.dumps(value).replace("Infinity", "1e400").encode() if "Infinity" not in repr(value) else b"null"


def whole(value: Any) -> Any:
    """Put U+FFFD for each half of a pair, as a pair is read from its two escapes."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if value else value
    if isinstance(value, list):
        return [whole(each) for each in value]
    if isinstance(value, dict):
        return {whole(name): whole(each) for name, each in value.items()}
    return value


def without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return "".join("\ufffd" if 0xD800 <= ord(letter) <= 0xDFFF else letter for letter in value)
    if isinstance(value, list):
        return [without_halves(each) for each in value]
    if isinstance(value, dict):
        return {without_halves(name): without_halves(each) for name, each in value.items()}
    return value


@settings(max_examples=examples(150))
@given(value=VALUES)
def test_all_that_json_loads_reads_is_read_alike(value: Any) -> None:
    data = written(value)
    mended: list[str] = []
    expected = without_halves(json.loads(data))
    assert decoder.decode(data, mended) == expected
    assert set(mended) <= {LONE_SURROGATES, OUT_OF_RANGE}
    # A part that is kept as it was written is read alike later on.
    raw = raw_decoder.decode(b'{"a":' + data + b"}")["a"]
    assert decoder.decode(raw) == expected


@settings(max_examples=examples(150))
@given(value=VALUES)
def test_only_halves_of_pairs_are_replaced(value: Any) -> None:
    data = json.dumps(value).encode()
    mended = without_lone_surrogates(data)
    assert len(mended) == len(data)
    assert json.loads(mended) == without_halves(json.loads(data))
    assert (mended is data) == (without_halves(json.loads(data)) == json.loads(data))


@given(data=st.text(max_size=40).map(lambda noise: f'"{noise}"'.encode("utf-8", "replace")))
def test_noise_stays_noise(data: bytes) -> None:
    assert without_lone_surrogates(without_lone_surrogates(data)) == without_lone_surrogates(data)
    assert without_constants(without_constants(data)) == without_constants(data)
    try:
        decoder.decode(data)
    except msgspec.DecodeError:
        with pytest.raises(ValueError):
            json.loads(data.decode("utf-8"))


@settings(max_examples=examples(150))
@given(value=st.recursive(st.one_of(SCALARS, st.just(math.nan)), lambda inner: st.lists(inner, max_size=5)))
def test_constants_outside_strings_are_replaced(value: Any) -> None:
    plain = json.loads(without_constants(json.dumps(value).encode()), parse_constant=pytest.fail)
    assert plain == json.loads(json.dumps(value), parse_constant=lambda name: None if name == "NaN" else float(name))


MEMBERS = {
    "jsonrpc": st.sampled_from(["2.0", "1.0", 2.0, None, 2]),
    "id": st.one_of(
        st.integers(0, 20), st.integers(0, 20).map(str), st.integers(0, 20).map(float), st.text(max_size=3)
    ),
    "method": st.one_of(st.none(), st.just("m")),
    "params": st.one_of(st.none(), st.just({})),
    "result": st.one_of(st.none(), VALUES),
    "error": st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "code": st.one_of(st.integers(-99, 99), st.integers(-99, 99).map(str), st.floats(-9, 9), st.none()),
                "message": st.one_of(st.none(), TEXT, st.integers()),
                "data": VALUES,
            },
        ),
    ),
    "other": VALUES,
}


@pytest.mark.parametrize("path", vector_paths())
@settings(max_examples=examples(150))
@given(message=st.fixed_dictionaries({}, optional=MEMBERS))
def test_a_reply_that_is_understood_is_json_rpc_for_whom_it_is_passed_on_to(path: str, message: Any) -> None:
    data = json.dumps(message).replace("Infinity", "1e400").encode()
    with scanning_by(path):
        try:
            reply = scan_reply(data)
        except FrameError:
            return
    if reply.method is not None:
        assert reply.method == message["method"]
        return
    passed_on = json.loads(reply.frame)
    given_id = message.get("id")
    assert passed_on["jsonrpc"] == "2.0"
    assert ("result" in passed_on) != ("error" in passed_on)
    # No id is taken for one that it does not spell; only an error may have none (2025-11-25, basic, error responses).
    if "id" in passed_on:
        assert passed_on["id"] == given_id or str(passed_on["id"]) == given_id
    else:
        assert "id" not in message and "error" in passed_on
    if "result" in passed_on:
        assert json.loads(reply.result or b"") == json.loads(json.dumps(message["result"]).replace("Infinity", "1e400"))
    else:
        error = passed_on["error"]
        assert isinstance(error["message"], str)
        assert error["code"] == reply.error_code == int(float(message["error"]["code"]))


NAMES = frozenset({b"a", b"isError"})
SAID = st.recursive(
    st.sampled_from([None, False, True, "", "x", 0, [], {}, "\\", '"isError":null', ":null"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "isError", "b", '"', ""]), inner, max_size=4)
    ),
    max_leaves=12,
)


def defaults_in(value: Any) -> bool:
    if isinstance(value, dict):
        said = any(
            name.encode() in NAMES and (member is None or member is False or member in ("", [], {}))
            for name, member in value.items()
        )
        return said or any(map(defaults_in, value.values()))
    return isinstance(value, list) and any(map(defaults_in, value))


@settings(max_examples=examples(150))
@given(value=SAID, indent=st.sampled_from([None, 0, 2]), tight=st.booleans())
def test_a_default_that_is_said_is_never_missed(value: Any, indent: int | None, tight: bool) -> None:
    data = json.dumps(value, indent=indent, separators=(",", ":") if tight else None).encode()
    if defaults_in(value):
        assert says_default(data, NAMES)
    elif '\\"' not in data.decode() and "\\\\" not in data.decode():
        assert not says_default(data, NAMES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a" :\n[ \t ]}', True),
        (b'{ "a":{\r}}', True),
        (b'{"\\u0061":null}', True),
        (b'{"a":[1],"b":null,"aa":false,"":""}', False),
        (b'{"a":0,"isError":true,"x":[":null"]}', False),
        (b":", False),
        (b":null", False),
        (b'":null', False),
        (b'"a":', False),
        (b'"a":[', False),
        (b"", False),
    ],
)
def test_what_says_a_default_and_what_does_not(text: bytes, said: bool) -> None:
    assert says_default(text, NAMES) is said
