"""Instances that fail much more often than the others of their server, and for how long they are taken out of traffic."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Final

from mcp_manager._core.router import Router
from mcp_manager.health.timing_wheel import Turn
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor

__all__ = ["SWEEP_S", "Ejections", "outliers"]

SWEEP_S: Final = 10.0

_MIN_INSTANCES: Final = 5
_MIN_CALLS: Final = 100
_DEVIATIONS: Final = 1.9
_BASE_S: Final = 30.0
_LONGEST_S: Final = 300.0


def outliers(counts: Sequence[tuple[int, int]]) -> list[int]:
    """Return the indexes of those whose success rate is below the mean by 1.9 standard deviations.

    This is Envoy's success rate ejection (its documentation, outlier detection), with its default factor.

    Parameters
    ----------
    counts
        The calls of each instance and how many of them failed. Those with fewer than 100 calls are left out, and with
        fewer than five left nobody is an outlier.
    """
    rates = {index: 1.0 - failures / calls for index, (calls, failures) in enumerate(counts) if calls >= _MIN_CALLS}
    if len(rates) < _MIN_INSTANCES:
        return []
    mean = sum(rates.values()) / len(rates)
    deviation = sqrt(sum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
    # Where all are alike, rounding is no deviation.
    return [index for index, rate in rates.items() if rate < mean - _DEVIATIONS * deviation and deviation > 1e-9]


class Ejections:
    """Take the outliers of one server out of traffic, for longer each time in a row, 300 s at most."""

    __slots__ = ("_in_a_row", "supervisor", "turn")

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.turn: Turn[Any] | None = None
        self._in_a_row: dict[Instance, int] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to compare, and it is asked for."""
        is_enough = len(self.supervisor.instances) >= _MIN_INSTANCES
        return is_enough and self.supervisor.config.health.outliers and not self.supervisor.is_over

    def sweep(self, router: Router, now_ns: int) -> list[Instance]:
        """Look at the calls of the breakers' windows, eject outliers, and return those that were.

        An instance that is back in traffic and no outlier has one ejection less in a row to answer for. The router keeps
        to ``balancing.max_ejection``.
        """
        instances = self.supervisor.instances
        counts: list[tuple[int, int]] = []
        judged: list[Instance] = []
        for instance in instances:
            if instance.backend is None or instance.backend.ejected_until_ns > now_ns:
                continue
            snapshot = router.backend_reading(instance.backend, now_ns)
            judged.append(instance)
            counts.append((snapshot.window_calls, snapshot.window_failures))
        found = {judged[index] for index in outliers(counts)}
        kept = {each: times for each, times in self._in_a_row.items() if each in instances}
        for instance in judged:
            if instance not in found and kept.get(instance):
                kept[instance] -= 1
        ejected: list[Instance] = []
        for instance in found:
            times = kept.get(instance, 0) + 1
            until_ns = now_ns + round(min(_BASE_S * times, _LONGEST_S) * 1e9)
            if instance.backend is not None and router.eject(instance.backend, until_ns):
                kept[instance] = times
                ejected.append(instance)
        self._in_a_row = kept
        return ejected
