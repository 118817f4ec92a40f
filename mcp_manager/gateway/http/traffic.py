"""Counts of what the gateway serves, and their page of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

__all__ = ["Traffic", "with_page"]

_END: Final = b"# EOF\n"
# Endpoints of servers that come and go; what is beyond is counted together.
_MOST_SERIES: Final = 10_000


class Traffic(Collector):
    """Count requests of clients, and tell how much is under way.

    Parameters
    ----------
    gauges
        By name and description, what tells a present number.
    more
        Returns further families.
    """

    def __init__(
        self, gauges: dict[tuple[str, str], Callable[[], int]], more: Callable[[], Iterable[Metric]] = tuple
    ) -> None:
        self._gauges = gauges
        self._more = more
        self.requests: dict[tuple[str, str, int], int] = {}
        """The numbers of requests by endpoint, era and status."""
        self.others: list[Collector] = []
        """What else has families of metrics of the gateway."""

    def count(self, endpoint: str, era: str, status: int) -> None:
        """Count a request that was answered."""
        key = endpoint, era, status
        requests = self.requests
        if key in requests:
            requests[key] += 1
        else:
            if len(requests) >= _MOST_SERIES:
                key = "_other", era, status
            requests[key] = requests.get(key, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        requests = CounterMetricFamily(
            "mcp_gateway_requests",
            "Requests of clients by endpoint, era of the protocol and HTTP status",
            labels=("endpoint", "era", "status"),
        )
        for (endpoint, era, status), count in sorted(self.requests.items()):
            requests.add_metric((endpoint, era, str(status)), count)
        yield requests
        for (name, documentation), read in self._gauges.items():
            yield GaugeMetricFamily(name, documentation, value=read())
        yield from self._more()
        for other in self.others:
            yield from other.collect()


def with_page(traffic: Traffic, accept: str, page: bytes) -> bytes:
    """Return a page of metrics with the families of the gateway in front."""
    own: bytes = choose_encoder(accept)[0](traffic)
    return own.removesuffix(_END) + page
