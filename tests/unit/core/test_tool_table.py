"""Calls by tool: bounded by recent use, and no call is lost from the counts."""

from __future__ import annotations

import json

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.call_path import CallPath
from mcp_manager._core.http_message import Request
from mcp_manager._core.jsonrpc import scan, scan_reply
from mcp_manager._core.records import Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager._core.tool_calls import says_tool_error
from mcp_manager._core.tool_table import LONGEST_TOOL_NAME, OTHER_TOOL_NAME, ToolTable
from mcp_manager.types import CallStatus, Outcome

CALL = "tools/call"
MS = 1_000_000


def router_of(*server_ids: str, max_tools: int = 1000) -> Router:
    router = Router(max_tools=max_tools)
    for server_id in server_ids:
        router.add_server(server_id)
        router.add_backend(server_id, None, BreakerSettings())
    return router


def begun(router: Router, server_id: str, tool: str | None) -> Lease:
    lease = router.pick(server_id, CALL, 0, 0)
    router.name_tool(lease, tool)
    return lease


def call(router: Router, server_id: str, tool: str | None, status: CallStatus = CallStatus.SUCCESS) -> None:
    router.done(begun(router, server_id, tool), Outcome.SUCCESS, status, MS)


def counts(router: Router, server_id: str) -> dict[str, int]:
    return {each.tool: sum(each.counts) for each in router.tools_of(router.server(server_id))}


def test_a_hundred_thousand_names_stay_bounded_and_none_of_their_calls_is_lost() -> None:
    router = router_of("a")
    for number in range(100_000):
        call(router, "a", f"tool-{number}")
    assert router.tools is not None
    assert len(router.tools) == 1000
    by_tool = counts(router, "a")
    assert by_tool.pop(OTHER_TOOL_NAME) == 99_000
    assert by_tool == {f"tool-{number}": 1 for number in range(99_000, 100_000)}
    (method,) = router.methods_of(router.server("a"))
    assert sum(each.count for each in router.tools_of(router.server("a"))) == method.count == 100_000


def test_the_tool_whose_last_use_is_the_longest_ago_gives_up_its_place() -> None:
    router = router_of("a", "b", max_tools=3)
    for server_id, tool in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x"), ("a", "z")):
        call(router, server_id, tool)
    assert counts(router, "a") == {"x": 2, "y": 1, "z": 1}
    assert counts(router, "b") == {OTHER_TOOL_NAME: 1}
    call(router, "b", "x")
    assert counts(router, "b") == {"x": 1, OTHER_TOOL_NAME: 1}
    assert counts(router, "a") == {"x": 2, "z": 1, OTHER_TOOL_NAME: 1}


def test_a_tool_that_loses_its_place_during_a_call_is_counted_with_the_others() -> None:
    router = router_of("a", max_tools=1)
    lease = begun(router, "a", "slow")
    call(router, "a", "fast")
    router.done(lease, Outcome.SUCCESS, CallStatus.TOOL_ERROR, MS)
    assert counts(router, "a") == {"fast": 1, OTHER_TOOL_NAME: 1}


def test_a_removed_server_gives_its_places_back() -> None:
    router = router_of("a", "b", max_tools=2)
    call(router, "a", "x")
    lease = begun(router, "a", "y")
    router.remove_server("a")
    assert router.tools is not None
    assert len(router.tools) == 0
    call(router, "b", "x")
    call(router, "b", "z")
    assert counts(router, "b") == {"x": 1, "z": 1}
    router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, MS)
    assert counts(router, "b") == {"x": 1, "z": 1}


@pytest.mark.parametrize("tool", [None, OTHER_TOOL_NAME, "x" * (LONGEST_TOOL_NAME + 1), "\ud800"])
def test_what_is_no_usable_name_is_counted_with_the_others(tool: str | None) -> None:
    router = router_of("a")
    call(router, "a", tool)
    assert counts(router, "a") == {OTHER_TOOL_NAME: 1}


def test_rejected_calls_are_counted_under_their_tool() -> None:
    router = Router()
    router.add_server("a", limits=Limits(max_concurrent=1))
    begun(router, "a", "x")
    router.add_backend("a", None, BreakerSettings())
    held = begun(router, "a", "x")
    refused = begun(router, "a", "x")
    router.count_refused(refused)
    router.count_refused(refused)
    router.count_unpicked(router.server("a"), CALL, "x")
    router.done(held, Outcome.SUCCESS, CallStatus.SUCCESS, MS)
    (tool,) = router.tools_of(router.server("a"))
    (method,) = router.methods_of(router.server("a"))
    assert tool.counts == method.counts
    shown = {status.label: count for status, count in zip(CallStatus, tool.counts, strict=True) if count}
    assert shown == {"no_instance": 1, "overloaded": 2, "success": 1}


def test_other_methods_and_a_table_that_is_off_count_no_tools() -> None:
    router = router_of("a")
    lease = router.pick("a", "ping", 0, 0)
    router.name_tool(lease, "x")
    router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, MS)
    assert counts(router, "a") == {}
    router = router_of("a", max_tools=0)
    call(router, "a", "x")
    assert router.tools is None
    assert counts(router, "a") == {}
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        ToolTable(0)


@pytest.mark.parametrize(
    ("params", "tool"),
    [
        (b'{"name":"echo","arguments":{}}', "echo"),
        (b' { "name" : "echo" } ', "echo"),
        (b'{"arguments":{"name":"inner","list":["}",{"name":1}]},"name":"echo"}', "echo"),
        (b'{"name":"\\u0065cho"}', "echo"),
        (b'{"name":"a\\"b","x":"c"}', 'a"b'),
        ('{"name":"größe"}'.encode(), "größe"),
        (b'{"name":7}', OTHER_TOOL_NAME),
        (b'{"arguments":{"name":"inner"}}', OTHER_TOOL_NAME),
        (b"{}", OTHER_TOOL_NAME),
        (b"[]", OTHER_TOOL_NAME),
        (None, OTHER_TOOL_NAME),
    ],
)
@pytest.mark.parametrize("is_encoded", [True, False], ids=["typed", "as written"])
def test_the_name_is_found_in_the_request(params: bytes | None, tool: str, is_encoded: bool) -> None:
    router = router_of("a")
    frame = b'{"method":"tools/call"' + (b"" if params is None else b',"params":' + params) + b"}"
    request = Request(b'"tools/call"', params) if is_encoded else scan(frame)
    for _ in range(2):
        direct = CallPath(router, lambda: 0, 1).begin(router.server("a"), CALL, request, 0, 10**12)
        router.done(direct.lease, Outcome.SUCCESS, CallStatus.SUCCESS, MS)
    assert counts(router, "a") == {tool: 2}


@pytest.mark.parametrize(
    ("result", "has_failed"),
    [
        ({"content": [], "isError": True}, True),
        ({"isError": True, "content": []}, True),
        ({"content": [], "isError": True, "_meta": {}}, True),
        ({"content": [], "isError": False}, False),
        ({"content": []}, False),
        ({"structuredContent": {"isError": True}}, False),
        ({"structuredContent": {"isError": True}, "isError": False}, False),
        ({"content": [{"type": "text", "text": '"isError": true'}]}, False),
        ({"content": [{"type": "text", "text": '"isError":true'}], "isError": True}, True),
        ({"content": [{"type": "text", "text": "E" * 100_000}], "isError": True}, True),
        ({"isError": True, "content": [{"type": "text", "text": "E" * 100_000}]}, True),
        ({"content": [{"type": "text", "text": "E" * 100_000}]}, False),
        ({"isError": "true"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\n", " : ")], ids=["dense", "spaced"])
def test_a_failed_tool_is_told_from_a_result_that_mentions_one(
    result: dict[str, object], has_failed: bool, separators: tuple[str, str]
) -> None:
    frame = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, separators=separators).encode()
    assert says_tool_error(scan_reply(frame)) is has_failed


def test_the_last_of_several_members_counts() -> None:
    for first, last in (("true", "false"), ("false", "true")):
        frame = b'{"id":1,"result":{"isError":%s,"x":1,"isError":%s}}' % (first.encode(), last.encode())
        assert says_tool_error(scan_reply(frame)) is (last == "true")


def test_own_methods_keep_their_places() -> None:
    router = Router(max_methods=2, own_methods=frozenset({CALL}))
    router.add_server("a")
    router.add_backend("a", None, BreakerSettings())
    for method in ("made/up/1", "made/up/2", "made/up/3", CALL, "made/up/4"):
        router.done(router.pick("a", method, 0, 0), Outcome.SUCCESS, CallStatus.SUCCESS, MS)
    shown = {each.method: each.counts[0] for each in router.methods_of(router.server("a"))}
    assert shown == {"made/up/1": 1, "made/up/2": 1, CALL: 1, "other": 2}


def test_the_tools_of_a_removed_server_get_no_place() -> None:
    router = router_of("a", "b", max_tools=3)
    call(router, "a", "x")
    removed = router.server("a")
    router.remove_server("a")
    # A caller that still holds the server's record counts a call.
    router.count_unpicked(removed, CALL, "y")
    assert router.tools is not None
    assert len(router.tools) == 0
    # The call that "x" had before lost its place with the server.
    assert {each.tool: sum(each.counts) for each in router.tools_of(removed)} == {OTHER_TOOL_NAME: 2}
    del removed
    for number in range(10):
        call(router, "b", f"tool-{number}")
    assert len(router.tools) == 3
