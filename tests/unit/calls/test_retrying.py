"""When a call that has failed is tried again: every class of failure with every class of method, the waits, the ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager._core.records import Backend
from mcp_manager.calls.retry_rules import Circumstances, next_backoff_s, pause_s, way_to_repeat
from mcp_manager.config import RetryConfig
from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InputRequiredError,
    OverloadedError,
    ProtocolError,
    SessionLostError,
    TaskError,
)
from mcp_manager.protocol.safety import safety_of, tool_of
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.transports.base import Request

RAW_CALL = Request(b'"tools/call"', b'{"name":"echo","arguments":{}}')


def fleet_test(
    test: Callable[[ScriptedFleet], Coroutine[Any, Any, None]], *, instances: int = 1, **settings: Any
) -> None:
    """Run a test with a fleet in virtual time; nothing may be left over."""

    async def run() -> None:
        fleet = ScriptedFleet(instances=instances, **settings)
        try:
            await fleet.connect()
            await test(fleet)
            assert fleet.under_way == 0
            assert fleet.supervisor.record.inflight == 0
        finally:
            await fleet.aclose()

    run_in_virtual_time(run())


def lost() -> CallError:
    return ConnectionLostError("lost")


def refused() -> CallError:
    return OverloadedError("limited")


# The table

FAILURES: dict[str, tuple[Callable[[], CallError], str]] = {
    "connect": (lambda: ConnectError("down"), "not_sent"),
    "not sent in time": (lambda: DeadlineExceededError("x", delivery="not_sent"), "not_sent"),
    "limited": (refused, "rejected"),
    "lost": (lost, "unknown"),
    "unavailable": (lambda: OverloadedError("503", delivery="unknown"), "unknown"),
    "silent": (lambda: DeadlineExceededError("x"), "unknown"),
    "failed": (lambda: ProtocolError("500", delivery="unknown", retryable=True), "unknown"),
    # What trying again would not change.
    "credentials": (lambda: AuthError("no"), "never"),
    "authorization": (lambda: AuthError("wait", retryable=True), "never"),
    "refused for good": (lambda: ProtocolError("400", delivery="rejected"), "never"),
    "stopped": (lambda: ConnectError("stopped", retryable=False), "never"),
    # The server has answered, or the call went on as something else.
    "input": (lambda: InputRequiredError("x", retryable=True), "never"),
    "slow handler": (lambda: DeadlineExceededError("x", delivery="answered"), "never"),
    "task": (lambda: TaskError("x"), "never"),
}
SAFE = [
    "ping",
    "server/discover",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
]
UNSAFE = ["tasks/update", "vendor/do", "vendor/list", "tools/call"]


@pytest.mark.parametrize("method", [*SAFE, *UNSAFE])
@pytest.mark.parametrize("failure", FAILURES)
def test_what_is_tried_again(failure: str, method: str) -> None:
    make, kind = FAILURES[failure]
    repeated = kind in ("not_sent", "rejected") or (kind == "unknown" and method in SAFE)

    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=make))
        params = {"name": "echo", "arguments": {}} if method == "tools/call" else {}
        if repeated:
            reply = await fleet.call(method, params)
            assert reply.result is not None
        else:
            error = await fleet.failure(method, params)
            assert (type(error), error.delivery) == (type(make()), make().delivery)
            assert error.attempts == 1
        assert [each.method for each in fleet.sent] == [method] * (2 if repeated else 1)

    fleet_test(test)


@pytest.mark.parametrize("method", ["resources/subscribe", "resources/unsubscribe"])
def test_subscriptions_may_be_made_twice(method: str) -> None:
    assert safety_of(method) == "safe"


def test_an_rpc_error_is_an_answer() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(rpc_error=-32603))
        reply = await fleet.call("tools/list")
        assert reply.error_code == -32603
        assert len(fleet.sent) == 1
        await fleet.call("tools/list")
        told = [each.status for each in fleet.flights.records()][-2:]
        assert told == ["rpc_error", "success"]

    fleet_test(test)


@pytest.mark.parametrize(
    ("retry", "listed", "repeated"),
    [
        ({}, {"echo": True}, False),
        ({"tools": {"echo": "safe"}}, {}, True),
        ({"tools": {"other": "safe"}}, {}, False),
        ({"trust_annotations": True}, {}, False),
        ({"trust_annotations": True}, {"echo": True}, True),
        ({"trust_annotations": True}, {"echo": False, "other": True}, False),
        ({"trust_annotations": True, "tools": {"echo": "unsafe"}}, {"echo": True}, False),
    ],
)
def test_what_is_known_of_a_tool_decides(retry: dict[str, Any], listed: dict[str, bool], repeated: bool) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.template.knowledge.hints.learn(listed.items(), fleet.template.knowledge.hints.epoch)
        fleet.acts.append(Act(error=lost))
        if repeated:
            await fleet.tool("echo")
        else:
            error = await fleet.failure("tools/call", {"name": "echo", "arguments": {}})
            # There is no way out of what the operator has said already.
            is_open = "echo" not in retry.get("tools", {})
            assert ("retry.tools" in error.hint and "'echo'" in error.hint) == is_open
        assert len(fleet.sent) == (2 if repeated else 1)

    fleet_test(test, retry=retry)


@pytest.mark.parametrize("params", [None, b"[]", b"{}", b'{"name":1}', b'{"name"', b"[" * 5000])
def test_a_call_of_nobody_knows_what_is_unsafe(params: bytes | None) -> None:
    assert tool_of(params) is None
    assert way_to_repeat("tools/call", Request(b'"tools/call"', params), RetryConfig()) == ""


def test_of_a_tool_with_a_long_name_the_beginning_is_told() -> None:
    told = way_to_repeat("tools/call", Request(b'"tools/call"', b'{"name":"%b"}' % (b"x" * 200)), RetryConfig())
    assert f"if {'x' * 80!r} is safe to call twice" in told


def test_a_hint_that_is_there_stays() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: ConnectionLostError("lost", hint="look into its log")))
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert error.hint == "look into its log"

    fleet_test(test)


def test_a_name_listed_twice_is_repeatable_if_both_are() -> None:
    hints = ToolHints()
    hints.learn([("a", True), ("b", True), ("a", False)], hints.epoch)
    assert not hints.is_repeatable("a")
    assert hints.is_repeatable("b")


def test_a_list_from_before_a_change_teaches_nothing() -> None:
    hints = ToolHints()
    epoch = hints.epoch
    hints.learn([("a", True)], epoch)
    hints.forget()
    assert not hints.is_repeatable("a")
    hints.learn([("a", True)], epoch)
    assert not hints.is_repeatable("a")


# How often


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_a_call_is_tried_so_often_and_says_so(attempts: int) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(error=refused)] * 9)
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert isinstance(error, OverloadedError)
        assert error.attempts == attempts == len(fleet.sent)
        assert error.delivery == "rejected"

    fleet_test(test, retry={"attempts": attempts})


def test_whatever_may_have_run_is_unknown_to_the_end() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(error=lost), Act(error=refused), Act(error=lambda: ConnectError("down"))])
        error = await fleet.failure("tools/list")
        assert (type(error), error.delivery, error.attempts) == (ConnectError, "unknown", 3)
        assert "[delivery: unknown]" in str(error)

    fleet_test(test)


def test_the_session_sends_once_more_within_the_attempts() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(error=lambda: SessionLostError("gone"), runs=False)] * 20)
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert isinstance(error, SessionLostError)
        assert error.attempts == len(fleet.sent) == 3

    fleet_test(test)


def test_without_retries_a_lost_session_is_replaced_once_all_the_same() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: SessionLostError("gone"), runs=False))
        await fleet.tool()
        assert len(fleet.sent) == 2

    fleet_test(test, retry={"attempts": 1})


def test_the_budget_ends_retries_with_the_error_at_hand() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts_of[0].extend([Act(error=refused)] * 100)
        errors = [await fleet.failure("tools/call", {"name": "echo"}) for _ in range(20)]
        assert all(isinstance(error, OverloadedError) for error in errors)
        # The first retries came from what was left over; a fifth of the calls is all there is, and one that rounds up.
        assert len(fleet.sent) - 20 <= 0.2 * len(fleet.sent) + 1

    fleet_test(test, retry={"budget": {"ratio": 0.2, "min_per_s": 0.0}})


# When


@pytest.mark.parametrize("instances", [1, 2])
def test_a_pause_ends_with_the_server(instances: int) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(error=lambda: OverloadedError("limited", retry_after_s=20.0))] * instances)
        failing = asyncio.create_task(fleet.failure("tools/list"))
        await asyncio.sleep(1.0)
        assert len(fleet.sent) == instances and not failing.done()
        await fleet.supervisor.aclose(5.0)
        error = await failing
        assert (type(error), error.attempts) == (OverloadedError, instances)
        assert fleet.passed_s == pytest.approx(1.0, abs=0.1)

    fleet_test(test, instances=instances)


def test_a_pause_ends_with_the_caller() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: OverloadedError("limited", retry_after_s=20.0)))
        calling = asyncio.create_task(fleet.call("tools/list"))
        await asyncio.sleep(1.0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert len(asyncio.all_tasks()) == 1

    fleet_test(test)


def test_waits_grow_at_random_within_their_bounds() -> None:
    config = RetryConfig(backoff_s=0.1, backoff_max_s=1.0)
    assert next_backoff_s(0.1, config, 0.0) == pytest.approx(0.1)
    assert next_backoff_s(0.1, config, 1.0) == pytest.approx(0.3)
    assert next_backoff_s(0.3, config, 0.5) == pytest.approx(0.5)
    assert next_backoff_s(0.9, config, 0.999) == 1.0


@given(
    st.floats(0.001, 10.0),
    st.floats(1.0, 100.0),
    st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=1, max_size=20),
)
def test_no_wait_is_out_of_bounds(backoff_s: float, factor: float, randoms: list[float]) -> None:
    config = RetryConfig(backoff_s=backoff_s, backoff_max_s=backoff_s * factor)
    wait_s = backoff_s
    for random in randoms:
        after = next_backoff_s(wait_s, config, random)
        assert backoff_s <= after <= min(config.backoff_max_s, max(3 * wait_s, backoff_s)) * (1 + 1e-9)
        wait_s = after


def asking(retry_after_s: float | None) -> CallError:
    return OverloadedError("limited", retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("error", "is_local", "has_other", "expected"),
    [
        (lost(), False, False, 0.1),
        (lost(), False, True, 0.1),
        # What a server asks for goes before the jitter, and binds nobody but itself.
        (asking(None), False, False, 0.1),
        (asking(0.02), False, False, 0.1),
        (asking(7.0), False, False, 7.0),
        (asking(7.0), False, True, 0.0),
        (asking(31.0), False, False, None),
        (asking(31.0), False, True, 0.0),
        # A process that is started again is waited for as any failure is.
        (ConnectError("x", retry_after_s=0.5), False, False, 0.5),
        (ConnectError("x", retry_after_s=2.5), False, False, None),
        # Local refusals: only where time alone helps, and not for long.
        (CircuitOpenError("x", retry_after_s=0.5), True, False, 0.5),
        (CircuitOpenError("x", retry_after_s=0.05), True, True, 0.1),
        (CircuitOpenError("x", retry_after_s=2.0), True, False, 2.0),
        (CircuitOpenError("x", retry_after_s=2.5), True, False, None),
        (CircuitOpenError("x", retry_after_s=0.0), True, False, None),
        (OverloadedError("full"), True, True, None),
    ],
)
def test_how_long_to_wait(error: CallError, is_local: bool, has_other: bool, expected: float | None) -> None:
    config = RetryConfig(backoff_s=0.1, backoff_max_s=2.0, retry_after_max_s=30.0)
    assert pause_s(error, config, 0.1, Circumstances(is_local, has_other)) == expected


@pytest.mark.parametrize("told_s", [0.05, 1.9, 2.5])
def test_the_end_of_a_trial_is_waited_for_like_any_other(told_s: float) -> None:
    config = RetryConfig(backoff_s=0.1, backoff_max_s=2.0)
    refusal = CircuitOpenError("x", retry_after_s=told_s)
    assert pause_s(refusal, config, 0.1, Circumstances(is_local=True, is_on_trial=True)) == 0.1


def test_attempts_are_apart_by_the_jitter() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=0.0, error=refused)] * 4)
        await fleet.tool()
        gaps = fleet.gaps_s
        assert len(gaps) == 4
        assert 0.1 <= gaps[0] <= 0.3
        for before, after in itertools.pairwise(gaps):
            assert 0.1 <= after <= min(1.0, 3 * before) + 1e-6

    fleet_test(test, retry={"attempts": 5, "backoff_s": 0.1, "backoff_max_s": 1.0})


def test_the_wait_a_server_asks_for_is_kept() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: asking(9.0)))
        await fleet.tool()
        assert 9.0 <= fleet.gaps_s[0] < 9.2

    fleet_test(test)


def test_a_wait_beyond_the_deadline_fails_at_once_and_is_told() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: asking(9.0)))
        error = await fleet.failure("tools/call", {"name": "echo"}, timeout_s=8.0)
        assert error.retry_after_s == 9.0
        assert fleet.passed_s < 0.1
        assert error.attempts == len(fleet.sent) == 1

    fleet_test(test)


def test_a_free_instance_need_not_wait_for_one_that_asked_for_it() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: asking(9.0)))
        await fleet.tool()
        assert fleet.passed_s < 0.1
        assert fleet.sent[0].instance != fleet.sent[1].instance

    fleet_test(test, instances=2)


def test_another_instance_is_preferred() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        for _ in range(20):
            fleet.acts.append(Act(error=refused_at_once))
            await fleet.tool()
            assert fleet.sent[-1].instance != fleet.sent[-2].instance

    def refused_at_once() -> CallError:
        return ConnectError("down")

    fleet_test(test, instances=3, balancing={"policy": "random"}, retry={"budget": {"min_per_s": 1e6}})


def test_no_attempt_without_time_for_half_of_all_calls() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=2.0)] * 5)
        await asyncio.gather(*(fleet.call("tools/list") for _ in range(5)))
        fleet.acts.append(Act(takes_s=0.001, error=lost))
        error = await fleet.failure("tools/list", timeout_s=1.5)
        assert isinstance(error, ConnectionLostError)
        assert len(fleet.sent) == 6
        fleet.acts.append(Act(takes_s=0.001, error=lost))
        await fleet.call("tools/list", timeout_s=5.0)

    fleet_test(test)


def test_a_cancelled_wait_is_over_at_once() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: asking(9.0)))
        call = asyncio.create_task(fleet.tool())
        await asyncio.sleep(1.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert fleet.passed_s == pytest.approx(1.0)
        assert len(fleet.sent) == 1

    fleet_test(test)


# What stands in front of the server

# Half a second after it opened, one call at a time is let through, whoever makes it.
ON_TRIAL_SOON = {"open_s": 0.5, "open_max_s": 0.5, "active_first": False, "half_open_permits": 1}


def tripped(fleet: ScriptedFleet) -> Backend:
    """Open the circuit of the first instance."""
    backend = fleet.supervisor.instances[0].backend
    assert backend is not None
    fleet.router.trip(backend, fleet.loop.clock())
    return backend


def test_a_circuit_that_closes_soon_is_waited_for() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        tripped(fleet)
        await fleet.tool()
        assert 0.4 <= fleet.passed_s <= 1.0
        assert len(fleet.sent) == 1

    fleet_test(test, breaker={"open_s": 0.5, "open_max_s": 0.5, "active_first": False})


def test_a_call_beside_a_trial_need_not_wait_until_the_trial_expires() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        tripped(fleet)
        await asyncio.sleep(0.5)
        fleet.acts.append(Act(takes_s=0.2))
        trial = asyncio.create_task(fleet.tool())
        await asyncio.sleep(0.1)
        await fleet.tool()
        # The trial ended 0.1 s after the refusal; of the pauses, the second ends at most 0.3 + 0.9 s after it.
        assert trial.done()
        assert fleet.passed_s <= 1.8
        assert len(fleet.sent) == 2

    fleet_test(test, breaker=ON_TRIAL_SOON, retry={"backoff_s": 0.1}, request_timeout_s=5.0)


def test_a_call_before_a_trial_that_is_due_need_not_wait_until_callers_are_let_through() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        circuit = tripped(fleet)
        await asyncio.sleep(0.6)
        call = asyncio.create_task(fleet.tool())
        await asyncio.sleep(0.01)
        fleet.router.reset_breaker(circuit, fleet.loop.clock())
        await call
        assert 0.65 <= fleet.passed_s <= 0.76

    breaker = {"open_s": 0.5, "open_max_s": 0.5, "active_first": True, "probe_grace_s": 2.0}
    # The monitor of this fleet does not run: nothing takes the trial.
    fleet_test(test, breaker=breaker, retry={"backoff_s": 0.05}, health={"enabled": True})


def test_a_trial_that_hangs_leaves_the_others_refused_soon() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        tripped(fleet)
        await asyncio.sleep(0.5)
        fleet.acts.append(Act(takes_s=1.9))
        trial = asyncio.create_task(fleet.tool())
        await asyncio.sleep(0.1)
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert isinstance(error, CircuitOpenError)
        assert error.attempts == 3
        assert not trial.done()
        await trial
        assert len(fleet.sent) == 1

    # Longer than the trial takes, and shorter than a retry may wait: whoever waits for that meets a closed circuit.
    breaker = {**ON_TRIAL_SOON, "probe_ttl_s": 2.0}
    fleet_test(test, breaker=breaker, request_timeout_s=10.0)


def test_a_circuit_that_stays_open_fails_at_once() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        tripped(fleet)
        error = await fleet.failure("tools/list")
        assert isinstance(error, CircuitOpenError)
        assert fleet.passed_s == 0.0

    fleet_test(test, breaker={"open_s": 5.0})


def test_a_failure_says_more_than_the_circuit_it_opened() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(error=lost)] * 9)
        error = await fleet.failure("tools/list")
        assert isinstance(error, ConnectionLostError)
        assert error.attempts == len(fleet.sent) == 2

    fleet_test(test, breaker={"consecutive_failures": 2, "open_s": 5.0})


def test_a_server_removed_during_the_wait_leaves_the_error() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: asking(5.0)))
        call = asyncio.create_task(fleet.tool())
        await asyncio.sleep(1.0)
        fleet.router.remove_server("a")
        with pytest.raises(OverloadedError, match="limited"):
            await call
        assert len(fleet.sent) == 1

    fleet_test(test)


def test_a_server_that_is_down_is_tried_again_and_found_when_it_is_back() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.unreachable[0] = lambda: ConnectError("cannot connect")
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert (type(error), error.delivery, error.attempts) == (ConnectError, "not_sent", 3)
        assert not fleet.sent
        call = asyncio.create_task(fleet.tool())
        await asyncio.sleep(0.01)
        fleet.unreachable.clear()
        await call

    async def unconnected() -> None:
        fleet = ScriptedFleet()
        try:
            await test(fleet)
        finally:
            await fleet.aclose()

    run_in_virtual_time(unconnected())
