"""Outlier detection: finds instances that fail much more often than the others of their server, and ejects them."""

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
    """Return the indexes of the instances whose success rate is over 1.9 standard deviations below the mean.

    This is Envoy's success rate ejection (its documentation, outlier detection), with its default factor.

    Parameters
    ----------
    counts
        The calls of each instance and how many of them failed. Instances with fewer than 100 calls are left out; if
        fewer than five remain, there are no outliers.
    """
    rates = {index: 1.0 - failures / calls for index, (calls, failures) in enumerate(counts) if calls >= _MIN_CALLS}
    if len(rates) < _MIN_INSTANCES:
        return []
    mean = sum(rates.values()) / len(rates)
    deviation = sqrt(sum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
    # If all rates are equal, rounding errors are not a deviation.
    return [index for index, rate in rates.items() if rate < mean - _DEVIATIONS * deviation and deviation > 1e-9]


class Ejections:
    """Eject the outliers of one server: for 30 s, and 30 s longer each further time in a row, at most 300 s."""

    __slots__ = ("_in_a_row", "supervisor", "turn")

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor: Supervisor = supervisor
        self.turn: Turn[Any] | None = None
        self._in_a_row: dict[Instance, int] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether ejections are configured and there are enough instances to compare."""
        is_enough = len(self.supervisor.instances) >= _MIN_INSTANCES
        return is_enough and self.supervisor.config.health.outliers and not self.supervisor.is_over

    def sweep(self, router: Router, now_ns: int) -> list[Instance]:
        """Find the outliers by the calls in the breakers' windows, eject them, and return the ejected instances.

        An instance that is back in traffic and not an outlier has one of its ejections in a row forgiven. The router
        enforces ``balancing.max_ejection``.
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
