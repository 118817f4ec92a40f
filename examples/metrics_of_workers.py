"""Metrics of several worker processes, as under gunicorn or uvicorn: every worker has a manager and a port of its own.

A scrape of the port that all workers share would reach one of them at random. So each serves its metrics on another
port, and tells Prometheus by a file, which file-based service discovery reads:

    scrape_configs:
      - job_name: mcp
        file_sd_configs:
          - files: [/run/service/metrics/*.json]

Here the parent process does what Prometheus would: it reads the files, scrapes all workers and adds up their counters.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from mcp_manager import MetricsCollector, PyMcpManager

WORKERS = 3
SERVER = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]}


@contextmanager
def metrics_of(manager: PyMcpManager, worker: int, directory: Path) -> Generator[None]:
    """Serve a manager's metrics on a free port, and announce it to Prometheus."""
    # A registry of its own; prometheus_client.REGISTRY would add the metrics of the process.
    registry = CollectorRegistry()
    registry.register(MetricsCollector(manager))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    announcement = directory / f"worker-{worker}.json"
    target = {"targets": [f"127.0.0.1:{server.server_port}"], "labels": {"worker": str(worker)}}
    # Renamed when it is complete: Prometheus may read it at any time.
    announcement.with_suffix(".new").write_text(json.dumps([target]), encoding="utf-8")
    announcement.with_suffix(".new").rename(announcement)
    try:
        yield
    finally:
        announcement.unlink()
        server.shutdown()
        server.server_close()
        thread.join()


def work(worker: int, directory: Path, parent: Connection) -> None:
    """Be a worker: make a few calls, then wait until the parent has seen the metrics."""
    with PyMcpManager() as manager, metrics_of(manager, worker, directory):
        manager.deploy_server("math", SERVER)
        for number in range(worker + 1):
            request = {"method": "tools/call", "params": {"name": "add", "arguments": {"a": number, "b": 1}}}
            manager.execute("math", json.dumps(request), timeout=30)
        parent.send("ready")
        parent.recv()


def scrape(directory: Path) -> Counter[tuple[str, str]]:
    """Scrape every announced worker; return the calls of all by server and status."""
    calls: Counter[tuple[str, str]] = Counter()
    for announcement in sorted(directory.glob("*.json")):
        (target,) = json.loads(announcement.read_text(encoding="utf-8"))
        with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics", timeout=30) as response:
            page = response.read().decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "mcp_requests_total" and sample.labels["method"] == "tools/call":
                    count = int(sample.value)
                    print(f"worker {target['labels']['worker']}: {count} calls of {sample.labels['server_id']}")
                    calls[sample.labels["server_id"], sample.labels["status"]] += count
    return calls


def started(context: SpawnContext, worker: int, directory: Path) -> tuple[Connection, SpawnProcess]:
    """Start a worker, and return the pipe to it and its process."""
    mine, theirs = context.Pipe()
    process = context.Process(target=work, args=(worker, directory, theirs))
    process.start()
    return mine, process


def main() -> None:
    """Start the workers, scrape them, and end them."""
    # A forked child must not use a manager of its parent; a fresh interpreter has none.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        workers = [started(context, worker, directory) for worker in range(WORKERS)]
        for pipe, _ in workers:
            pipe.recv()
        for (server_id, status), count in scrape(directory).items():
            print(f"all workers: {count} calls of {server_id}, {status}")
        for pipe, process in workers:
            pipe.send("stop")
            process.join()
        print(f"{len(list(directory.glob('*.json')))} workers announced after their end")


if __name__ == "__main__":
    main()
