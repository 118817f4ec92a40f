"""Counts of what clients use, beside a simple model; and lines of the audit log, beside those of the general encoder."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mcp_manager._core.client_limits import Counter, RouteUse, UseCounts, answered_line, take
from mcp_manager.config import ClientLimitConfig
from mcp_manager.gateway.security import audit_lines
from mcp_manager.gateway.security.audit_lines import AuditLine

SECOND = 1_000_000_000
# Their intervals are whole nanoseconds, so that the model is exact.
RATES = (0.0, 0.25, 0.5, 1.0)


class Counts(RuleBasedStateMachine):
    """Requests of one principal that several limits count, at a virtual time."""

    @initialize(
        limits=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(RATES), st.integers(1, 3)), max_size=3),
        most=st.integers(0, 4),
        workers=st.integers(1, 2),
    )
    def begin(self, limits: list[tuple[int, float, int]], most: int, workers: int) -> None:
        self.configs = [ClientLimitConfig(max_concurrent=a, rate=b, burst=c) for a, b, c in limits]
        self.counters = tuple(Counter(each, workers) for each in self.configs)
        self.workers, self.most = workers, most
        self.account = UseCounts()
        self.running: list[tuple[Counter, ...]] = []
        self.now_ns = 0
        # Of each limit, when the next request is expected.
        self.expected = [0.0] * len(limits)

    def refuses(self, chosen: tuple[Counter, ...]) -> tuple[Counter, bool] | None:
        """Return the counter that refuses a request, and whether its rate does."""
        for counter in chosen:
            most = -(-counter.config.max_concurrent // self.workers)
            if most and sum(counter in each for each in self.running) >= most:
                return counter, False
        for counter in chosen:
            config, number = counter.config, self.counters.index(counter)
            if config.rate:
                interval = SECOND * self.workers / config.rate
                due = max(self.expected[number], float(self.now_ns))
                if due - self.now_ns > (-(-config.burst // self.workers) - 1) * interval:
                    return counter, True
                self.expected[number] = due + interval
        return None

    @rule(which=st.sets(st.integers(0, 2)))
    def request(self, which: set[int]) -> None:
        chosen = tuple(each for number, each in enumerate(self.counters) if number in which)
        refused = self.account.begin_request(chosen, self.most, self.now_ns)
        if self.most and len(self.running) >= self.most:
            assert refused == (None, 0)
            return
        expected = self.refuses(chosen)
        if expected is None:
            assert refused is None
            self.running.append(chosen)
        else:
            assert refused is not None
            assert (refused[0], refused[1] > 0) == expected

    @rule(number=st.integers(0, 10))
    def end(self, number: int) -> None:
        if self.running:
            self.account.end_request(self.running.pop(number % len(self.running)))

    @rule(quarters=st.integers(0, 40))
    def wait(self, quarters: int) -> None:
        self.now_ns += quarters * SECOND // 4

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "account"):
            return
        assert self.account.running == len(self.running)
        for counter in self.counters:
            assert counter.running == sum(counter in each for each in self.running)


TestCounts = Counts.TestCase


def test_a_limit_that_refuses_counts_nothing() -> None:
    free, full = Counter(ClientLimitConfig(max_concurrent=5), 1), Counter(ClientLimitConfig(max_concurrent=1), 1)
    assert take((free, full), 0) is None
    assert take((free, full), 0) == (full, 0)
    assert (free.running, full.running) == (1, 1)


def test_counts_are_of_one_process() -> None:
    account = UseCounts()
    use = RouteUse(None, account, (), 0, object(), None, b"")
    for each in (Counter(ClientLimitConfig(max_concurrent=1), 1), account, use):
        with pytest.raises(TypeError):
            pickle.dumps(each)


@given(
    at_ms=st.integers(0, 4_000_000_000_000),
    duration_ns=st.integers(0, 10**15),
    sizes=st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    texts=st.tuples(st.text(), st.text(), st.none() | st.text()),
)
def test_lines_are_those_of_the_encoder(
    at_ms: int, duration_ns: int, sizes: tuple[int, int], texts: tuple[str, str, str | None]
) -> None:
    principal, server, name = (each if each is None else each.encode("utf-8", "replace").decode() for each in texts)
    told: dict[str, Any] = {
        "principal": principal,
        "method": "tools/call",
        "name": name,
        "server": server,
        "server_name": name,
        "outcome": "ok",
        "delivery": "answered",
    }
    between = audit_lines.between_time_and_numbers(AuditLine(time="", **told))
    line = answered_line(at_ms * 1_000_000, between, duration_ns, *sizes)
    expected = AuditLine(
        time=audit_lines.rfc3339(at_ms * 1_000_000),
        **told,
        duration_ms=duration_ns // 1000 / 1000,
        bytes_in=sizes[0],
        bytes_out=sizes[1],
    )
    assert b"\n" not in line
    assert list(json.loads(line).items()) == list(json.loads(audit_lines.encoded(expected)).items())
