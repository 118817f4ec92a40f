"""Whatever goes wrong, in whatever order: never more attempts than allowed, none past the deadline, nothing unsafe twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager.errors import (
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    OverloadedError,
    ProtocolError,
    SessionLostError,
)
from mcp_manager.testing.virtual_time import run_in_virtual_time

# Rounding of the clock, and the resolution of the loop's timers.
_SLACK_S = 1e-6


@dataclass(frozen=True)
class Failing:
    """A way to fail, and whether the server may have executed the request."""

    make: Callable[[float | None], CallError]
    may_run: bool


FAILINGS = [
    Failing(lambda after: ConnectError("down", retry_after_s=after), False),
    Failing(lambda after: OverloadedError("429", retry_after_s=after), False),
    Failing(lambda after: SessionLostError("gone"), False),
    Failing(lambda after: ProtocolError("400", delivery="rejected"), False),
    Failing(lambda after: ConnectionLostError("lost"), True),
    Failing(lambda after: OverloadedError("503", delivery="unknown", retry_after_s=after), True),
    Failing(lambda after: DeadlineExceededError("late"), True),
    Failing(lambda after: ProtocolError("garbage"), True),
]
DELAYS = st.sampled_from([0.0, 0.001, 0.05, 0.4, 3.0])


@st.composite
def failing_acts(draw: st.DrawFn) -> Act:
    kind = draw(st.sampled_from(FAILINGS))
    after = draw(st.sampled_from([None, None, 0.0, 0.3, 2.0, 70.0]))
    runs = kind.may_run and draw(st.booleans())
    return Act(takes_s=draw(DELAYS), error=lambda: kind.make(after), runs=runs)


@st.composite
def acts(draw: st.DrawFn) -> Act:
    return draw(failing_acts()) if draw(st.integers(0, 9)) < 8 else Act(takes_s=draw(DELAYS))


@dataclass
class Call:
    method: str
    timeout_s: float


@settings(max_examples=examples(300), deadline=None)
@given(
    script=st.lists(acts(), min_size=1, max_size=25),
    instances=st.integers(1, 3),
    attempts=st.integers(1, 5),
    known=st.sampled_from([None, "safe", "unsafe"]),
    calls=st.lists(
        st.builds(
            Call,
            method=st.sampled_from(["tools/call", "tools/list", "vendor/do"]),
            timeout_s=st.sampled_from([0.01, 0.5, 5.0, 60.0]),
        ),
        min_size=1,
        max_size=6,
    ),
    breaks=st.booleans(),
    hedges=st.booleans(),
)
def test_attempts_deadlines_and_what_ran(
    script: list[Act], instances: int, attempts: int, known: str | None, calls: list[Call], breaks: bool, hedges: bool
) -> None:
    tools = {} if known is None else {"echo": known}

    async def run() -> None:
        fleet = ScriptedFleet(
            instances=instances,
            retry={"attempts": attempts, "tools": tools},
            hedge={"enabled": hedges, "min_samples": 1, "max_share": 1.0},
            breaker={"enabled": breaks, "consecutive_failures": 2, "open_s": 0.5},
        )
        try:
            await fleet.connect()
            # What was looked up is fresh for a second.
            await fleet.call("tools/list")
            await asyncio.sleep(1.1)
            fleet.sent.clear()
            fleet.acts.extend(script)
            for call in calls:
                await one_call(fleet, call)
        finally:
            await fleet.aclose()

    async def one_call(fleet: ScriptedFleet, call: Call) -> None:
        before, began_s = len(fleet.sent), fleet.passed_s
        error: CallError | None = None
        try:
            async with asyncio.timeout(call.timeout_s + 10.0):
                await fleet.call(call.method, {"name": "echo", "arguments": {}}, timeout_s=call.timeout_s)
        except CallError as failure:
            error = failure
        sent = fleet.sent[before:]
        # A session that is lost is replaced and asked once more even without retries, and a hedge is one request more.
        assert len(sent) <= max(attempts, 3 if hedges else 2)
        if not any(type(each.failure) is SessionLostError for each in sent):
            assert len(sent) <= (max(attempts, 2) if hedges else attempts)
        assert all(each.at_s - began_s <= call.timeout_s + _SLACK_S for each in sent)
        is_safe = call.method == "tools/list" or (call.method == "tools/call" and known == "safe")
        unknown = [each for each in sent if each.failure is not None and each.failure.delivery == "unknown"]
        if not is_safe:
            # Nothing was sent after a failure that may have been one of the answer alone.
            assert not unknown or unknown == [sent[-1]]
            assert sum(each.runs for each in sent) <= 1
        if error is not None:
            assert error.attempts >= max(len(sent), 1)
            if unknown:
                assert error.delivery == "unknown"
            if any(each.runs for each in sent):
                assert error.delivery not in ("not_sent", "rejected")
        assert fleet.under_way == 0
        assert fleet.supervisor.record.inflight == 0

    run_in_virtual_time(run())
