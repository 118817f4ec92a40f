"""Arithmetic of distributions, held against what was recorded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.readings import Distribution, operations, tool_operations
from mcp_manager._core.router import Router
from mcp_manager.telemetry.distributions import less, together
from mcp_manager.types import CallStatus, Outcome

CALLS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.one_of(st.integers(0, 10**7), st.integers(0, 400 * 10**9))), max_size=60
)


def at_scale(shown: Distribution, scale: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for index, count in enumerate(shown.counts, shown.offset):
        if count:
            found[index >> shown.scale - scale] = found.get(index >> shown.scale - scale, 0) + count
    return found


@given(CALLS)
def test_what_is_left_of_calls_after_some_tools_are_the_other_tools(calls: list[tuple[str, int]]) -> None:
    router = Router(max_tools=10)
    router.add_server("s")
    router.add_backend("s", object(), BreakerSettings())
    assert router.tools is not None
    for tool, took_ns in calls:
        lease = router.pick("s", "tools/call", 10**9, 0)
        router.name_tool(lease, tool)
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, 10**9 + took_ns)
    server = router.server("s")
    tools = {each.tool: each.durations for each in tool_operations(router.tools, server)}
    if not calls:
        assert tools == {}
        return
    (whole,) = operations(server)
    named = together(tools[tool] for tool in "ab" if tool in tools)
    rest = less(whole.durations, named)
    expected = together(tools[tool] for tool in "cd" if tool in tools)
    assert at_scale(rest, 3) == at_scale(expected, 3)
    assert (rest.count, rest.sum_ns, rest.zero_count) == (expected.count, expected.sum_ns, expected.zero_count)
    assert not rest.counts or (rest.counts[0] and rest.counts[-1])
    every = together(tools.values())
    assert at_scale(every, 3) == at_scale(whole.durations, 3)
    assert (every.count, every.sum_ns) == (whole.durations.count, whole.durations.sum_ns)
