"""The metrics of several workers on one page."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from mcp_manager.gateway.workers.metrics import labelled, merged


def registry(worker: int) -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("up", "Whether it is up.\nOr not.", registry=made).set(worker)
    calls = Counter("calls", "Calls.", ["server"], registry=made)
    calls.labels('a "b" {c} # d\n').inc(worker + 1, exemplar={"trace": "x"})
    Histogram("took_seconds", "Times.", registry=made).observe(0.2)
    if worker:
        Counter("only_one", "Of one worker only.", registry=made).inc()
    Gauge("none", "Without samples.", ["server"], registry=made)
    return made


@pytest.mark.parametrize(("generate", "read"), [(generate_latest, parse), (generate_open_metrics, parse_open_metrics)])
def test_every_sample_of_every_worker_is_there_once_with_its_worker(generate, read) -> None:  # type: ignore[no-untyped-def]
    pages = [generate(registry(worker)) for worker in range(3)]
    page = merged([labelled(each, number) for number, each in enumerate(pages)])
    families = list(read(page.decode()))
    assert len({each.name for each in families}) == len(families)
    found = sorted(
        (sample.name, sorted(sample.labels.items()), sample.value) for each in families for sample in each.samples
    )
    wanted = sorted(
        (sample.name, sorted({**sample.labels, "worker": str(number)}.items()), sample.value)
        for number, text in enumerate(pages)
        for each in read(text.decode())
        for sample in each.samples
    )
    assert found == wanted
    assert {each.name: each.documentation for each in families}["up"] == "Whether it is up.\nOr not."
