"""What requests of clients of 2026-07-28 have to say, and which era a message belongs to."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.errors import RpcError
from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.eras.classification import is_stateless
from mcp_manager.gateway.eras.header_checks import decoded_field
from mcp_manager.gateway.eras.request_checks import check_method, missing_for, read_request

KEY = "io.modelcontextprotocol/"
META: dict[str, Any] = {f"{KEY}protocolVersion": "2026-07-28", f"{KEY}clientCapabilities": {}}
TASKS: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


class Sent:
    """An HTTP request with these header fields."""

    path = "/mcp"
    body = b""

    def __init__(self, **fields: str) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.sent = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}

    def header(self, name: bytes) -> bytes | None:
        return self.sent.get(name)

    def fields(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent.items())

    def reply(self, status: int, body: bytes, fields: bytes = b"") -> None:
        raise NotImplementedError

    def open_events(self, fields: bytes = b"") -> EventStream:
        raise NotImplementedError


def message(method: str = "tools/call", **params: Any) -> Message:
    """Return a request."""
    return scan(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())


def sent(method: str = "tools/call", **fields: str) -> Sent:
    """Return an HTTP request with the header fields that a method needs."""
    return Sent(**{"mcp_protocol_version": "2026-07-28", "mcp_method": method, **fields})


def refusal(request: Message, incoming: Sent | None) -> RpcError:
    """Return why a request is refused."""
    with pytest.raises(RpcError) as caught:
        read_request(request, incoming, "someone")
    return caught.value


def test_a_request_says_who_sends_it() -> None:
    capabilities: dict[str, Any] = {"elicitation": {}}
    meta = {**META, f"{KEY}clientCapabilities": capabilities, f"{KEY}logLevel": "info"}
    request = message(name="a", _meta=meta, requestState="s", inputResponses={"k": {}})
    asked = read_request(request, sent(mcp_name="a"), "someone")
    assert (asked.name, asked.log_level, asked.request_state) == ("a", "info", "s")
    assert asked.input_responses == b'{"k": {}}'
    assert (asked.client.principal, asked.client.capabilities) == ("someone", capabilities)
    assert asked.client.can_be_asked


@pytest.mark.parametrize("missing", ["protocolVersion", "clientCapabilities"])
def test_the_envelope_must_be_complete(missing: str) -> None:
    meta = {name: value for name, value in META.items() if name != KEY + missing}
    failure = refusal(message(name="a", _meta=meta), sent(mcp_name="a"))
    assert failure.code == -32602
    assert missing in failure.message


@pytest.mark.parametrize(
    "params",
    [{}, {"_meta": None}, {"_meta": 1}, {"_meta": META, "requestState": 1}, {"_meta": {**META, f"{KEY}logLevel": 3}}],
)
def test_params_of_a_wrong_form_are_refused(params: dict[str, Any]) -> None:
    assert refusal(message("tools/list", **params), sent("tools/list")).code == -32602


@pytest.mark.parametrize("capabilities", [None, 1, [], "x"])
def test_capabilities_must_be_an_object(capabilities: object) -> None:
    meta = {**META, f"{KEY}clientCapabilities": capabilities}
    assert refusal(message("tools/list", _meta=meta), sent("tools/list")).code == -32602


def test_an_unknown_revision_is_told_what_is_supported() -> None:
    meta = {**META, f"{KEY}protocolVersion": "2099-01-01"}
    failure = refusal(message("tools/list", _meta=meta), sent("tools/list", mcp_protocol_version="2099-01-01"))
    assert failure.code == -32022
    assert failure.data == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


@pytest.mark.parametrize(("version", "code"), [("2020-01-01", -32022), (" 2026-07-28 ", -32602), ("", -32602)])
def test_an_unknown_revision_is_told_without_an_envelope_too(version: str, code: int) -> None:
    failure = refusal(message(name="a"), sent(mcp_protocol_version=version))
    assert failure.code == code
    assert code == -32602 or failure.data["requested"] == version


def test_what_is_no_version_is_not_repeated() -> None:
    key = "mcpm_" + 50 * "x"
    failure = refusal(message(name="a"), sent(mcp_protocol_version=key))
    assert failure.code == -32022
    assert key not in f"{failure} {failure.data}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mcp_protocol_version", "2025-11-25"),
        ("mcp_method", "prompts/get"),
        ("mcp_method", "TOOLS/CALL"),
        ("mcp_name", "b"),
        ("mcp_name", "=?base64?YQ=?="),
        ("mcp_name", "=?base64?!!!!?="),
    ],
)
def test_header_fields_must_agree_with_the_body(field: str, value: str) -> None:
    request = message(name="a", _meta=META)
    fields = {"mcp_name": "a", field: value}
    assert refusal(request, sent(**fields)).code == -32020
    incoming = sent(mcp_name="a")
    del incoming.sent[field.replace("_", "-").encode()]
    assert refusal(request, incoming).code == -32020
    assert read_request(request, None, "someone").name == "a"


def test_a_name_may_be_padded_or_encoded() -> None:
    for value in ("ä", "a b", " a", "=?base64?YQ==?="):
        encoded = "=?base64?" + base64.b64encode(value.encode()).decode() + "?="
        assert read_request(message(name=value, _meta=META), sent(mcp_name=f"  {encoded}\t"), "x").name == value
    assert read_request(message(name="a", _meta=META), sent(mcp_name=" a "), "x").name == "a"


def test_only_complete_sentinels_are_decoded() -> None:
    assert decoded_field(b"=?base64?YQ==") == "=?base64?YQ=="
    assert decoded_field(b"YQ==?=") == "YQ==?="
    assert decoded_field(b"=?base64?=") == "=?base64?="
    assert decoded_field(b"=?base64?/w==?=") is None


@pytest.mark.parametrize(
    "method",
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/result"],
)
def test_methods_that_were_removed_are_not_found(method: str) -> None:
    asked = read_request(message(method, _meta=META), None, "x")
    with pytest.raises(RpcError, match="Method not found") as caught:
        check_method(method, asked)
    assert caught.value.code == -32601


def test_tasks_need_the_extension() -> None:
    with pytest.raises(RpcError) as caught:
        check_method("tasks/get", read_request(message("tasks/get", taskId="t", _meta=META), None, "x"))
    assert caught.value.data == {"requiredCapabilities": TASKS}
    meta = {**META, f"{KEY}clientCapabilities": TASKS}
    check_method("tasks/get", read_request(message("tasks/get", taskId="t", _meta=meta), None, "x"))


@pytest.mark.parametrize(
    ("method", "params", "declared", "missing"),
    [
        ("elicitation/create", {}, {"elicitation": {}}, None),
        ("elicitation/create", {}, {}, {"elicitation": {}}),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        ("elicitation/create", {"mode": "url"}, {}, {"elicitation": {"url": {}}}),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}, None),
        ("sampling/createMessage", {}, {"roots": {}}, {"sampling": {}}),
        ("sampling/createMessage", {"tools": []}, {"sampling": {}}, {"sampling": {"tools": {}}}),
        ("roots/list", {}, {"roots": {}}, None),
        ("roots/list", {}, {}, {"roots": {}}),
        ("other/question", {}, {"roots": {}}, {}),
    ],
)
def test_what_a_question_needs(
    method: str, params: dict[str, Any], declared: dict[str, Any], missing: dict[str, Any] | None
) -> None:
    assert missing_for(method, params, declared) == missing


@pytest.mark.parametrize(
    ("params", "field", "session", "expected"),
    [
        ({"_meta": META}, None, None, True),
        ({"_meta": META}, b"2025-11-25", None, True),
        ({"_meta": META}, b"2025-11-25", "id", False),
        ({}, b"2026-07-28", None, True),
        ({}, b"v999", None, True),
        ({}, b" 2025-06-18 ", None, False),
        ({"arguments": {f"{KEY}protocolVersion": "x"}}, None, None, False),
        ({"_meta": {f"{KEY}protocolVersion": 7}}, None, None, True),
        ({"_meta": [f"{KEY}protocolVersion"]}, None, None, True),
    ],
)
def test_the_era_of_a_message(params: dict[str, Any], field: bytes | None, session: str | None, expected: bool) -> None:
    assert is_stateless(message(**params), field, session) is expected
