"""Header values, mirrored parameters, envelopes and rounds, against models that are written the other way round."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.errors import InvalidRequestError
from mcp_manager.protocol.envelope import Envelope
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.protocol.header_values import encode_header_value, header_line
from mcp_manager.protocol.multi_round import MalformedResult, read_input_required, result_type, retry_params
from mcp_manager.protocol.parameter_headers import InvalidAnnotation, mirrored_parameters, parameter_fields

PREFIX = "io.modelcontextprotocol/"
CLIENT = ClientIdentity(name="n", version="v", stateless_capabilities={"roots": {}})

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
HEADER_TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from(" \t!a"), max_size=4),
    st.text(st.sampled_from(" \t=?base64ABC\r\n\x00\x7f~!é"), max_size=20),
    st.builds("=?base64?{}?=".format, st.text(st.sampled_from("QUJD=?+/ "), max_size=12)),
    st.builds("=?BASE64?{}?=".format, st.text(st.sampled_from("QUJD="), max_size=12)),
)


def decode(value: str) -> str:
    """What a server reads in a header value."""
    if value.startswith("=?base64?") and value.endswith("?=") and len(value) >= len("=?base64??="):
        return base64.b64decode(value[len("=?base64?") : -len("?=")], validate=True).decode("utf-8")
    return value


def received(line: bytes) -> tuple[str, str]:
    """Read a header line as a server does: the white space around the value is not part of it."""
    assert line.endswith(b"\r\n") and line.count(b"\n") == line.count(b"\r") == 1
    name, _, value = line[:-2].decode("ascii").partition(":")
    return name, value.strip(" \t")


@given(HEADER_TEXTS)
def test_a_header_value_is_read_as_it_was_meant(text: str) -> None:
    name, value = received(header_line("Mcp-Name", text))
    assert name == "Mcp-Name"
    assert re.fullmatch(r"[\x20-\x7e\t]*", value)
    assert decode(value) == text


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20))
def test_what_may_stand_as_it_is_does(text: str) -> None:
    looks_encoded = text.startswith("=?base64?") and text.endswith("?=")
    assert (encode_header_value(text) == text) is not looks_encoded


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("trailing ", "=?base64?dHJhaWxpbmcg?="),
        ("", ""),
        ("inner tab\tstays", "inner tab\tstays"),
    ],
)
def test_the_examples_of_the_specification(text: str, encoded: str) -> None:
    assert encode_header_value(text) == encoded


# Mirrored parameters: a schema is drawn together with what is wrong with it.

TOKENS = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,6}", fullmatch=True)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
KINDS = {"string": st.text(max_size=6), "integer": st.integers(-(2**53) + 1, 2**53 - 1), "boolean": st.booleans()}


def nested(path: list[str], leaf: dict[str, Any]) -> dict[str, Any]:
    schema = leaf
    for step in reversed(path):
        schema = {"type": "object", "properties": {step: schema}}
    return schema


def rendered(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | int) else value


@given(st.lists(NAMES, min_size=1, max_size=3), TOKENS, st.sampled_from(sorted(KINDS)), st.data())
def test_an_argument_is_mirrored_from_its_exact_place(
    path: list[str], token: str, kind: str, data: st.DataObject
) -> None:
    value = data.draw(KINDS[kind])
    parameters = mirrored_parameters(nested(path, {"type": kind, "x-mcp-header": token}))
    arguments: Any = value
    for step in reversed(path):
        arguments = {step: arguments, step + "'": "another"}
    name, text = received(parameter_fields(parameters, arguments))
    assert name == f"Mcp-Param-{token}"
    assert decode(text) == rendered(value)
    absent = data.draw(st.sampled_from([None, {}, {path[0]: None}, [], {path[0]: []}]))
    assert parameter_fields(parameters, absent) == b""


WRAPPED: list[tuple[str, Any]] = [
    *((keyword, lambda leaf: leaf) for keyword in ("items", "not", "if", "then", "else", "contains", "propertyNames")),
    *((keyword, lambda leaf: [leaf]) for keyword in ("oneOf", "anyOf", "allOf", "prefixItems", "items")),
    *((keyword, lambda leaf: {"x": leaf}) for keyword in ("$defs", "definitions", "patternProperties", "dependencies")),
    ("additionalProperties", lambda leaf: leaf),
    ("unevaluatedProperties", lambda leaf: leaf),
]


@given(st.lists(NAMES, max_size=2), st.sampled_from(WRAPPED), st.lists(NAMES, max_size=2), TOKENS, st.booleans())
def test_an_annotation_off_the_properties_makes_a_tool_invalid(
    before: list[str], wrapped: tuple[str, Any], after: list[str], token: str, is_direct: bool
) -> None:
    keyword, wrap = wrapped
    leaf = {"type": "string", "x-mcp-header": token}
    schema = nested(before, {keyword: wrap(leaf if is_direct else nested(after, leaf))})
    with pytest.raises(InvalidAnnotation):
        mirrored_parameters(schema)


@pytest.mark.parametrize("token", ["", " ", "a b", "a:b", "a\r\nb", "é", "a/b", "(a)", 7, None, ["a"], {}])
def test_an_annotation_must_be_a_token(token: Any) -> None:
    with pytest.raises(InvalidAnnotation):
        mirrored_parameters({"properties": {"a": {"type": "string", "x-mcp-header": token}}})


@pytest.mark.parametrize("kind", ["number", "object", "array", "null", None, ["string"], ["string", "null"], 7])
def test_an_annotation_must_be_on_a_plain_value(kind: Any) -> None:
    with pytest.raises(InvalidAnnotation):
        mirrored_parameters({"properties": {"a": {"type": kind, "x-mcp-header": "A"}}})


@given(TOKENS)
def test_annotations_are_unique_whatever_their_case(token: str) -> None:
    leaf = {"type": "string"}
    properties = {"a": {**leaf, "x-mcp-header": token.upper()}, "b": {**leaf, "x-mcp-header": token.lower()}}
    with pytest.raises(InvalidAnnotation):
        mirrored_parameters({"properties": properties})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x-mcp-header": {"type": "string"}}},
        {"properties": {"a": {"default": {"x-mcp-header": ""}, "enum": [{"x-mcp-header": ""}]}}},
        {"properties": {"a": {"$ref": "https://127.0.0.1/never"}}},
        True,
        None,
        [],
        {"properties": []},
    ],
)
def test_what_only_looks_like_an_annotation_is_none(schema: Any) -> None:
    assert mirrored_parameters(schema) == ()


def test_a_root_annotation_is_no_propertys() -> None:
    with pytest.raises(InvalidAnnotation):
        mirrored_parameters({"type": "string", "x-mcp-header": "A"})


# The envelope


def spaced(value: object, gap: str) -> bytes:
    return gap.encode() + json.dumps(value, separators=("," + gap, gap + ":" + gap)).encode() + gap.encode()


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), st.sampled_from(["", " ", "\n\t "]))
def test_params_are_what_they_were_beside_their_meta(params: dict[str, Any], gap: str) -> None:
    params.pop("_meta", None)
    raw = spaced(params, gap)
    dressed = Envelope(CLIENT, "2026-07-28").params(raw)
    decoded = json.loads(dressed)
    meta = decoded.pop("_meta")
    assert decoded == params
    assert meta[PREFIX + "protocolVersion"] == "2026-07-28"
    assert meta[PREFIX + "clientCapabilities"] == {"roots": {}}
    if b'"_meta"' not in raw and b"\\u" not in raw and params:
        # Nothing is read and written again.
        assert dressed.endswith(raw.strip()[1:].lstrip() + gap.encode())
    for value in params.values():
        assert gap or json.dumps(value, separators=(",", ":")).encode() in dressed


@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=3), st.booleans())
def test_the_callers_meta_counts_but_for_the_revision(given_meta: dict[str, Any], escaped: bool) -> None:
    given_meta = {**given_meta, PREFIX + "protocolVersion": "1999-01-01", PREFIX + "clientInfo": {"name": "mine"}}
    raw = json.dumps({"a": 1, "_meta": given_meta}).encode()
    if escaped:
        raw = raw.replace(b'"_meta"', b'"_met\\u0061"', 1)
    trace = {} if escaped else {"traceparent": "00-1"}
    more = json.dumps(trace).encode()[1:-1] or None
    meta = json.loads(Envelope(CLIENT, "2026-07-28").params(raw, more))["_meta"]
    expected = {**trace, **given_meta, PREFIX + "protocolVersion": "2026-07-28"}
    assert {key: meta[key] for key in expected} == expected
    assert meta[PREFIX + "clientCapabilities"] == {"roots": {}}


@pytest.mark.parametrize("params", [b"[]", b"[{}]", b'"{"', b"7", b"null", b'{"_meta":7}', b'{"_meta":[]}'])
def test_params_that_are_no_object_are_refused(params: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        Envelope(CLIENT, "2026-07-28").params(params)


def test_no_params_are_an_empty_object() -> None:
    envelope = Envelope(CLIENT, "2026-07-28")
    assert set(json.loads(envelope.params(None))) == set(json.loads(envelope.params(b" { } "))) == {"_meta"}


def test_a_log_level_is_asked_for_until_it_is_taken_back() -> None:
    envelope = Envelope(CLIENT, "2026-07-28")
    envelope.set_log_level("debug")
    assert json.loads(envelope.in_revision("x").params(None))["_meta"][PREFIX + "logLevel"] == "debug"
    envelope.set_log_level(None)
    assert PREFIX + "logLevel" not in json.loads(envelope.params(None))["_meta"]


@pytest.mark.parametrize(
    ("method", "member"), [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")]
)
def test_the_fields_name_what_the_last_member_of_that_name_names(method: str, member: str) -> None:
    envelope = Envelope(CLIENT, "2026-07-28")
    for name in ("a", "b", "a"):
        params = f'{{"{member}":"x","arguments":{{"{member}":"inner"}},"{member}":"{name}"}}'.encode()
        assert envelope.fields(method, params) == f"Mcp-Method: {method}\r\nMcp-Name: {name}\r\n".encode()
    assert envelope.fields("tools/list", None) == b"Mcp-Method: tools/list\r\n"


# Results and rounds


@given(
    st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3), st.sampled_from(["complete", "task", "odd", 7, None])
)
def test_the_type_of_a_result_is_that_of_the_object_itself(result: dict[str, Any], kind: Any) -> None:
    result.pop("resultType", None)
    inner = {**result, "inner": {"resultType": "complete"}}
    for order in ({"resultType": kind, **inner}, {**inner, "resultType": kind}):
        for raw in (json.dumps(order).encode(), json.dumps(order, separators=(",", ":")).encode()):
            for shown in (raw, memoryview(raw)):
                if isinstance(kind, str):
                    assert result_type(shown) == kind
                else:
                    with pytest.raises(MalformedResult):
                        result_type(shown)
    assert result_type(json.dumps(inner).encode()) == "complete"


@pytest.mark.parametrize("last", ["complete", {"resultType": "complete"}, '"resultType":"complete"}'])
def test_what_a_result_ends_with_is_not_its_type(last: Any) -> None:
    raw = json.dumps({"resultType": "task", "status": last}, separators=(",", ":")).encode()
    assert result_type(raw) == result_type(memoryview(raw)) == "task"


@given(st.text(max_size=12), st.booleans(), st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=3))
def test_the_state_goes_back_byte_by_byte(state: str, ascii_only: bool, params: dict[str, Any]) -> None:
    written = json.dumps(state, ensure_ascii=ascii_only)
    try:
        raw = f'{{"resultType":"input_required","requestState" : {written} }}'.encode()
    except UnicodeEncodeError:
        return
    asked = read_input_required(raw)
    again = retry_params(json.dumps(params).encode(), asked, {})
    assert written.encode() in again
    assert json.loads(again) == {
        **{key: value for key, value in params.items() if key not in ("inputResponses", "requestState")},
        "requestState": state,
    }


def test_answers_go_back_and_a_state_that_was_not_given_does_not() -> None:
    asked = read_input_required(b'{"inputRequests":{"k":{"method":"roots/list"}},"requestState":null}')
    again = retry_params(b'{"name":"n","requestState":"old","inputResponses":{}}', asked, {"k": {"roots": []}})
    assert json.loads(again) == {"name": "n", "inputResponses": {"k": {"roots": []}}}


@given(st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_anything_that_is_no_question_is_malformed(raw: bytes) -> None:
    try:
        asked = read_input_required(raw)
    except MalformedResult:
        return
    assert asked.input_requests or bytes(asked.request_state)
