"""What one result may cost: decoded up to a bound, and refused beyond it with the way out."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.caching import freshness
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits, JsonDecoder, TooMuchToDecodeError
from mcp_manager.protocol.multi_round import result_type
from mcp_manager.protocol.subscriptions import read_subscription_id
from mcp_manager.protocol.tasks import read_created_task
from mcp_manager.results import CallToolResult, Tool, decode_result, drain_pages
from mcp_manager.results.large_results import limits_for, read_result
from mcp_manager.session.knowledge.kept_results import KeptResults

FEW = DecodingLimits(10_000, 1_300_000)


def tool_result(structured: bytes) -> bytes:
    return b'{"content":[],"structuredContent":' + structured + b"}"


def list_of(entry: bytes, count: int) -> bytes:
    return b"[" + b",".join([entry] * count) + b"]"


@pytest.mark.parametrize(
    ("entry", "fits", "too_many"),
    [
        (b"{}", 4_900, 9_000),
        (b'{"a":1}', 2_400, 4_000),
        (b"[[[[]]]]", 1_200, 3_000),
        (b"1234567", 9_900, 20_000),
        (b'"ab"', 9_900, 20_000),
        (b"1.5e300", 3_000 // 300, 3_000),
    ],
)
def test_a_result_has_so_many_values_and_no_more(entry: bytes, fits: int, too_many: int) -> None:
    if len(entry) * too_many < 16 * 1024:
        entry += b" " * 16
    result = decode_result("s", tool_result(list_of(entry, fits)), CallToolResult, limits=FEW)
    assert len(result.structured_content) == fits
    with pytest.raises(ProtocolError, match="more than 10000 values") as failure:
        decode_result("s", tool_result(list_of(entry, too_many)), CallToolResult, limits=FEW)
    assert failure.value.delivery == "answered"
    assert not failure.value.retryable
    assert "execute_raw" in failure.value.hint
    assert "max_response_values" in failure.value.hint


def test_one_wide_character_widens_its_whole_string() -> None:
    text = b'"' + b"a" * 300_000
    assert len(decode_result("s", text + b'"', Any, limits=FEW)) == 300_000
    with pytest.raises(ProtocolError, match="strings of 1200016 bytes") as failure:
        decode_result("s", text + '😀"'.encode(), Any, limits=FEW)
    assert "max_response_bytes" in failure.value.hint


def test_an_odd_member_does_not_change_what_a_result_may_be() -> None:
    unknown = b'{"content":[],"mine":' + list_of(b"{}", 9_000) + b"}"
    with pytest.raises(ProtocolError, match="more than 10000 values"):
        decode_result("s", unknown, CallToolResult, limits=FEW)


def test_whatever_servers_send_is_bounded_where_it_is_decoded() -> None:
    decoder: JsonDecoder[Any] = JsonDecoder(Any)
    many = list_of(b"{}", DEFAULT_LIMITS.values)
    with pytest.raises(TooMuchToDecodeError):
        decoder.decode(many)
    with pytest.raises(msgspec.DecodeError):
        decoder.decode(msgspec.Raw(many))
    assert len(decoder.decode(many, limits=None)) == DEFAULT_LIMITS.values


def test_what_is_only_looked_into_may_be_as_large_as_it_likes() -> None:
    many = list_of(b"{}", DEFAULT_LIMITS.values)
    assert result_type(b'{"structuredContent":' + many + b',"resultType":"input_required"}') == "input_required"
    hints = freshness(b'{"ttlMs":1000,"resources":' + many + b"}")
    assert hints is not None
    assert hints.ttl_ns == 10**9
    assert read_created_task(tool_result(many)) is None
    assert read_subscription_id(b'{"a":' + many + b',"_meta":{"io.modelcontextprotocol/subscriptionId":7}}') == 7
    kept = KeptResults()
    kept.keep("tools/call", None, tool_result(many), 0)
    assert kept.find("tools/call", None) is None
    kept.keep("tools/call", None, tool_result(list_of(b"{}", 1000)), 0)
    assert kept.find("tools/call", None) is not None


def test_the_limits_follow_from_the_size_of_replies() -> None:
    assert limits_for(16 * 1024 * 1024, None) == DEFAULT_LIMITS
    assert limits_for(1024 * 1024, None).values == 1024 * 1024 // 48
    assert limits_for(1024, None).values == 1000
    assert limits_for(1024, 5_000_000).values == 5_000_000


@pytest.mark.parametrize(
    ("result", "elsewhere"),
    [
        (tool_result(list_of(b'{"a":1}', 500)), False),
        (tool_result(b'"' + b"a" * 200_000 + b'"'), False),
        (tool_result(list_of(b'{"a":1}', 5_000)), True),
        (tool_result(b'"' + b"a" * 300_000 + b'"'), True),
    ],
    ids=["short", "one string", "many values", "long"],
)
async def test_what_takes_long_is_read_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, result: bytes, elsewhere: bool
) -> None:
    readers: list[threading.Thread] = []

    def decode(*args: Any) -> Any:
        readers.append(threading.current_thread())
        return decode_result(*args)

    monkeypatch.setattr("mcp_manager.results.large_results.decode_result", decode)
    read = await read_result("s", result, CallToolResult)
    assert read == decode_result("s", result, CallToolResult)
    assert (readers != [threading.current_thread()]) is elsewhere


async def test_faults_found_beside_the_loop_are_told_on_it() -> None:
    tellers: set[threading.Thread] = set()
    entries = b",".join([b'{"name":"t","odd":1}'] * 2_000 + [b'{"title":"no name"}'])

    async def fetch(cursor: str | None) -> bytes:
        return b'{"tools":[' + entries + b"]}"

    tools = await drain_pages("s", "tools", Tool, fetch, lambda *_: tellers.add(threading.current_thread()))
    assert len(tools) == 2_000
    assert tellers == {threading.current_thread()}
