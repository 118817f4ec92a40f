"""The exemplars that the core keeps of its histograms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.readings import INFINITE_BOUND, Exemplar, exemplars, note_exemplar, tool_exemplars
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, Outcome


def exemplar(value_ns: int, number: int = 1) -> Exemplar:
    return Exemplar(number, number, value_ns, number)


def called(router: Router, duration_ns: int, method: str = "m", tool: str | None = None) -> None:
    lease = router.pick("s", method, 10**9, 0)
    if method == "tools/call":
        router.name_tool(lease, tool)
    router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, 10**9 + duration_ns)


@pytest.fixture
def router() -> Router:
    made = Router(max_tools=2)
    made.add_server("s")
    made.add_backend("s", object(), BreakerSettings())
    return made


@given(st.lists(st.one_of(st.integers(0, 10**7), st.integers(0, 400 * 10**9)), min_size=1, max_size=50))
def test_the_latest_exemplar_of_every_bucket_is_kept(durations: list[int]) -> None:
    router = Router()
    router.add_server("s")
    router.add_backend("s", object(), BreakerSettings())
    server = router.server("s")
    expected = {}
    for number, duration in enumerate(durations):
        called(router, duration)
        note_exemplar(server, "m", exemplar(duration, number))
        seconds = duration * 1e-9
        bound = next((k for k in range(-12, 9) if seconds <= 2.0**k), INFINITE_BOUND)
        expected[bound] = exemplar(duration, number)
    assert exemplars(server, "m") == expected
    assert len(expected) <= 22


def test_a_bucket_without_durations_has_no_exemplar(router: Router) -> None:
    called(router, 250_000_000)
    server = router.server("s")
    for value in (0, 50_000_000, 1_100_000_000, math.ceil(256.1e9)):
        note_exemplar(server, "m", exemplar(value))
    note_exemplar(server, "never called", exemplar(1))
    assert exemplars(server, "m") == {}
    # The bound belongs to its bucket.
    note_exemplar(server, "m", exemplar(250_000_000))
    assert exemplars(server, "m") == {-2: exemplar(250_000_000)}
    assert exemplars(server, "never called") == {}


@pytest.mark.parametrize("value", [124_999_999, 250_000_001])
def test_a_call_that_was_measured_a_little_differently_keeps_its_exemplar(router: Router, value: int) -> None:
    called(router, 250_000_000)
    note_exemplar(router.server("s"), "m", exemplar(value))
    assert exemplars(router.server("s"), "m") == {-2: exemplar(value)}


def test_methods_beyond_the_limit_share_their_exemplars() -> None:
    router = Router(max_methods=1)
    router.add_server("s")
    router.add_backend("s", object(), BreakerSettings())
    for method in ("first", "second", "third"):
        called(router, 1, method)
    server = router.server("s")
    note_exemplar(server, "third", exemplar(1))
    assert exemplars(server, "first") == {}
    assert exemplars(server, "second") == exemplars(server, "other") == {-12: exemplar(1)}


def test_tools_keep_exemplars_as_long_as_they_have_a_place(router: Router) -> None:
    server = router.server("s")
    for number, tool in enumerate(("a", "b"), 1):
        called(router, 10**6, "tools/call", tool)
        note_exemplar(server, "tools/call", exemplar(10**6, number), tool)
    assert tool_exemplars(server, "a") == {-9: exemplar(10**6, 1)}
    assert tool_exemplars(server, "b") == {-9: exemplar(10**6, 2)}
    assert exemplars(server, "tools/call") == {-9: exemplar(10**6, 2)}
    # It takes the place of a.
    called(router, 10**6, "tools/call", "c")
    note_exemplar(server, "tools/call", exemplar(10**6, 3), "a")
    note_exemplar(server, "tools/call", exemplar(10**6, 4), None)
    assert tool_exemplars(server, "a") == tool_exemplars(server, "c") == {}
    assert tool_exemplars(server, "_other") == {-9: exemplar(10**6, 4)}
    router.remove_server("s")
    assert tool_exemplars(server, "b") == {}
