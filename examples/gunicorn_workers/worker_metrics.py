"""Metrics of all workers on one page.

Each worker serves its metrics on a port of its own, and announces it in a file. The worker that is asked for the page of
the service fetches those of all workers, and adds the label ``worker``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import urllib.request
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

# It has no types, unlike the parser of the older format, which knows no exemplars.
from prometheus_client.openmetrics.parser import text_string_to_metric_families  # pyright: ignore[reportUnknownVariableType]
from prometheus_client.registry import Collector

from mcp_manager import McpManager, MetricsCollector, PyMcpManager

__all__ = ["announced", "child_exit", "on_exit", "on_starting", "page_of_workers", "post_fork", "pre_fork"]

_DIRECTORY: Final = "METRICS_DIRECTORY"
_NUMBER: Final = "WORKER_NUMBER"
_TIMEOUT_S: Final = 2.0
_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"

# The proxies of the environment are for other hosts than this one.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# The number of each worker by its age, which is its place in the order of all that the master has started.
_numbers: dict[int, int] = {}


# Hooks of gunicorn; configuration files import them.


def on_starting(_: Arbiter) -> None:
    """Choose the directory for announcements, in the master."""
    if _DIRECTORY not in os.environ:
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="metrics-")
    directory = Path(os.environ[_DIRECTORY])
    directory.mkdir(parents=True, exist_ok=True)
    # What is left if a master and its workers were killed.
    for announcement in directory.glob("worker-*.json"):
        announcement.unlink(missing_ok=True)


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Give a worker the lowest free number, in the master.

    A worker that takes the place of another goes on with its time series. Process ids would begin new ones each time.
    """
    taken = {_numbers[each.age] for each in server.WORKERS.values()}
    _numbers[worker.age] = next(number for number in itertools.count() if number not in taken)


def post_fork(_: Arbiter, worker: Worker) -> None:
    """Tell a worker its number."""
    os.environ[_NUMBER] = str(_numbers[worker.age])


def child_exit(_: Arbiter, worker: Worker) -> None:
    """Remove the announcement of a worker that has ended, in the master: one that was killed could not."""
    _announcement(_numbers.pop(worker.age)).unlink(missing_ok=True)


def on_exit(_: Arbiter) -> None:
    """Remove the directory, in the master, unless it has other files."""
    with contextlib.suppress(OSError):
        Path(os.environ[_DIRECTORY]).rmdir()


# The part of a worker


@contextlib.contextmanager
def announced(manager: McpManager | PyMcpManager) -> Generator[None]:
    """Serve the metrics of this worker's manager on a free port, and announce it, while the block runs."""
    # A registry of its own; prometheus_client.REGISTRY would add the metrics of the process.
    registry = CollectorRegistry()
    registry.register(MetricsCollector(manager))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    number = int(os.environ[_NUMBER])
    # The format of Prometheus' file-based service discovery; it drops labels that begin with "__".
    labels = {"worker": str(number), "__meta_pid": str(os.getpid())}
    announcement = _announcement(number)
    # Renamed when it is complete: others may read it at any time.
    complete = announcement.with_suffix(".new")
    complete.write_text(json.dumps([{"targets": [f"127.0.0.1:{server.server_port}"], "labels": labels}]), "utf-8")
    complete.rename(announcement)
    try:
        yield
    finally:
        announcement.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        thread.join()


def _announcement(number: int) -> Path:
    return Path(os.environ[_DIRECTORY], f"worker-{number}.json")


# The page of the service


class Page(NamedTuple):
    """What a scrape gets."""

    body: bytes
    content_type: str


def page_of_workers(accept: str) -> Page:
    """Return the metrics of all workers, in the format that a scraper accepts; wait for 2 s at most."""
    targets = dict(_targets())
    with ThreadPoolExecutor(max_workers=max(len(targets), 1)) as pool:
        pages = dict(zip(targets, pool.map(_fetched, targets.values()), strict=True))
    registry = CollectorRegistry()
    registry.register(_Workers(pages))
    encode, content_type = choose_encoder(accept)
    return Page(encode(registry), content_type)


def _targets() -> Iterator[tuple[str, str]]:
    for announcement in sorted(Path(os.environ[_DIRECTORY]).glob("*.json")):
        # It is gone if the worker has ended since the directory was read.
        with contextlib.suppress(FileNotFoundError):
            (group,) = json.loads(announcement.read_text("utf-8"))
            yield group["labels"]["worker"], group["targets"][0]


def _fetched(target: str) -> str | None:
    """Return the page of a worker; ``None`` if it does not answer."""
    request = urllib.request.Request(f"http://{target}/metrics", headers={"Accept": _OPENMETRICS})
    try:
        with _direct.open(request, timeout=_TIMEOUT_S) as response:
            page: bytes = response.read()
    except OSError:
        return None
    return page.decode()


class _Workers(Collector):
    """The families of all workers as one, and whether each of them answered."""

    def __init__(self, pages: dict[str, str | None]) -> None:
        self._pages = pages

    def collect(self) -> Iterable[Metric]:
        answered = GaugeMetricFamily("mcp_worker_up", "Whether the worker answered the scrape", labels=["worker"])
        families: dict[str, Metric] = {answered.name: answered}
        for worker, page in self._pages.items():
            answered.add_metric([worker], page is not None)
            for family in _families(page or "# EOF\n"):
                merged = families.setdefault(family.name, _empty(family))
                merged.samples += [each._replace(labels={**each.labels, "worker": worker}) for each in family.samples]
        return families.values()


def _families(page: str) -> Iterator[Metric]:
    return text_string_to_metric_families(page)  # type: ignore[no-untyped-call,no-any-return]  # see its import


def _empty(family: Metric) -> Metric:
    return Metric(family.name, family.documentation, family.type, family.unit)
