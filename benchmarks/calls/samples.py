"""The measurements, and the medians and paired ratios that are computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.calls.cases import Case

__all__ = ["Samples", "Summary"]


class _Key(NamedTuple):
    case: str
    loop: str
    client: str


class Summary(NamedTuple):
    """The medians over the rounds of one client in one case."""

    cpu_us: float
    calls_per_s: float
    p50_us: float
    p99_us: float
    peak_kb: float
    rounds: int


@dataclass
class Samples:
    """The measurements of all rounds, and why some are missing.

    Attributes
    ----------
    rounds
        The measurements by case, loop and client.
    missing
        Clients that are not available here, with the reason.
    failed
        What went wrong, by case, loop and client.
    server_us
        Processor time that the server took per request, by case, loop and client.
    """

    rounds: dict[_Key, list[dict[str, Any]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[_Key, str] = field(default_factory=dict)
    server_us: dict[_Key, list[float]] = field(default_factory=dict)

    def add(self, case: Case, loop: str, client: str, measured: dict[str, Any], server_us: float | None) -> None:
        """Add a round."""
        key = _Key(str(case), loop, client)
        self.rounds.setdefault(key, []).append(measured)
        if server_us is not None:
            self.server_us.setdefault(key, []).append(server_us)

    def fail(self, case: Case, loop: str, client: str, reason: str) -> None:
        """Leave a client out of a case, and drop what was measured for it."""
        key = _Key(str(case), loop, client)
        self.failed[key] = reason
        self.rounds.pop(key, None)

    def cases(self) -> list[tuple[str, str]]:
        """Return the pairs of case and loop that have figures, in the order measured."""
        return list(dict.fromkeys((key.case, key.loop) for key in self.rounds))

    def clients(self, case: str, loop: str) -> list[str]:
        """Return the clients measured in a case."""
        return [key.client for key in self.rounds if (key.case, key.loop) == (case, loop)]

    def summary(self, case: str, loop: str, client: str) -> Summary | None:
        """Return the medians of a client in a case; ``None`` if it was not measured there."""
        rounds = self.rounds.get(_Key(case, loop, client))
        if not rounds:
            return None
        return Summary(
            cpu_us=statistics.median(each["cpu_us_per_call"] for each in rounds),
            calls_per_s=statistics.median(each["calls_per_s"] for each in rounds),
            p50_us=statistics.median(each["p50_us"] for each in rounds),
            p99_us=statistics.median(each["p99_us"] for each in rounds),
            peak_kb=statistics.median(each["peak_kb"] for each in rounds),
            rounds=len(rounds),
        )

    def ratio(self, case: Case, loop: str, client: str, to: str) -> float | None:
        """Return the median over the rounds of one client's processor time per call divided by another's."""
        return _median(one / other for one, other in self._pairs(case, loop, client, to))

    def difference(self, case: Case, loop: str, client: str, to: str) -> float | None:
        """Return the median over the rounds of how many µs of processor time a call takes more than another's."""
        return _median(one - other for one, other in self._pairs(case, loop, client, to))

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "samples": [
                {**key._asdict(), "round": number, **measured}
                for key, rounds in self.rounds.items()
                for number, measured in enumerate(rounds)
            ],
            "server_us_per_request": [
                {**key._asdict(), "median": statistics.median(values)} for key, values in self.server_us.items()
            ],
            "missing": self.missing,
            "failed": [{**key._asdict(), "reason": reason} for key, reason in self.failed.items()],
        }

    def _pairs(self, case: Case, loop: str, client: str, to: str) -> Iterable[tuple[float, float]]:
        ours = self.rounds.get(_Key(str(case), loop, client), [])
        theirs = self.rounds.get(_Key(str(case), loop, to), [])
        for one, other in zip(ours, theirs, strict=False):
            yield one["cpu_us_per_call"], other["cpu_us_per_call"]


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
