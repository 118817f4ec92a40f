"""What the benchmark makes of its samples: cases, medians, paired ratios, targets, the chart."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from benchmarks.calls.cases import ALONE, FULL, LARGE, SMALL, Case, parse_case
from benchmarks.calls.plot import chart
from benchmarks.calls.replies import render
from benchmarks.calls.report import comparison_tables, missing_lines, target_table
from benchmarks.calls.samples import Samples
from benchmarks.calls.targets import Target, comparisons, evaluate
from benchmarks.calls.worker import CLIENTS

ABOUT: dict[str, Any] = {
    "date": "2026-01-02",
    "machine": "<a & b>, 2 cores",
    "system": "Linux 6",
    "python": "CPython 3.11",
    "versions": {"mcp": "2"},
}
FLEETS = ("fleet of 10", "fleet of 10,000", "fleet of 10,000, all called")
SVG = "{http://www.w3.org/2000/svg}"


def measured(cpu_us: float, **figures: float) -> dict[str, Any]:
    return {"cpu_us_per_call": cpu_us, "calls_per_s": 1e6, "p50_us": 1.0, "p99_us": 2.0, "peak_kb": 1024, **figures}


def samples_of(case: Case, loop: str, **clients: list[float]) -> Samples:
    samples = Samples()
    for client, figures in clients.items():
        for figure in figures:
            samples.add(case, loop, client, measured(figure), 5.0)
    return samples


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("json/100/16", Case("json", 100, 16)),
        ("sse/10k/64", Case("sse", 10_000, 64)),
        ("rows/1M/1", Case("rows", 1_000_000, 1)),
        ("json/100/1/1000", Case("json", 100, 1, tools=1000)),
        ("json/1234/1", Case("json", 1234, 1)),
    ],
)
def test_a_case_is_read_as_it_is_written(text: str, case: Case) -> None:
    assert parse_case(text) == case
    assert str(case) == text


def test_all_cases_differ_and_have_replies() -> None:
    assert len({str(case) for case in FULL}) == len(FULL) == 24
    for case in FULL:
        assert render(case.path.encode()) is not None
        assert case.expected().letters > case.size * 0.97 - 120


def test_a_ratio_is_the_median_of_ratios_within_a_round() -> None:
    # The machine was slow in the second round, for both: the ratio of the medians would say 2.
    samples = samples_of(SMALL, "asyncio", one=[10, 60, 21], other=[10, 20, 7])
    assert samples.ratio(SMALL, "asyncio", "one", "other") == 3
    assert samples.difference(SMALL, "asyncio", "one", "other") == 14
    summary = samples.summary(str(SMALL), "asyncio", "one")
    assert summary is not None and summary.cpu_us == 21 and summary.rounds == 3
    assert samples.ratio(SMALL, "uvloop", "one", "other") is None
    assert samples.ratio(ALONE, "asyncio", "one", "other") is None


def test_a_client_that_failed_has_no_figures_but_a_reason() -> None:
    samples = samples_of(SMALL, "asyncio", good=[10, 10], bad=[1])
    samples.fail(SMALL, "asyncio", "bad", "it broke")
    samples.missing["gone"] = "not installed"
    assert samples.clients(str(SMALL), "asyncio") == ["good"]
    assert samples.ratio(SMALL, "asyncio", "good", "bad") is None
    assert missing_lines(samples) == [
        "left out: gone (not installed)",
        "failed: bad in json/100/16 on asyncio (it broke)",
    ]


def test_a_table_has_the_dearest_client_first() -> None:
    samples = samples_of(SMALL, "asyncio", **{"mcp": [900.0], "aiohttp + orjson": [90.0], "execute_raw": [100.0]})
    lines = comparison_tables(samples, list(CLIENTS)).splitlines()
    assert lines[0].startswith("100 B JSON, 16 in flight, asyncio")
    assert [line.split()[0] for line in lines[2:5]] == ["mcp", "execute_raw", "aiohttp"]
    assert lines[2].split()[1:3] == ["900.0", "10.00"]


@pytest.mark.parametrize(
    ("value", "at_most", "met"), [(2.0, True, True), (2.1, True, False), (2.0, False, True), (1.9, False, False)]
)
def test_a_target_is_met_up_to_its_limit(value: float, at_most: bool, met: bool) -> None:
    target = Target("it", value, "x", at_most, 2.0)
    assert target.met is met
    assert target_table([target]).splitlines()[-1].split()[-1] == ("yes" if met else "no")
    assert target._replace(value=None).met is None


def test_targets_come_from_the_clients_and_cases_they_name() -> None:
    costs = {"mcp": 1000.0, "aiohttp + orjson": 100.0, "execute_async": 15.0, "execute_raw": 13.0, "bare lane": 10.0}
    samples = samples_of(SMALL, "uvloop", **{name: [cost, 2 * cost] for name, cost in costs.items()})
    for case, client, cost in [
        (ALONE, "execute", 90.0),
        (ALONE, "execute_async", 40.0),
        (LARGE, "execute_raw", 500.0),
        (LARGE, "bare lane", 400.0),
        (LARGE, "scan", 100.0),
        (LARGE, "msgspec Raw", 300.0),
        (Case("rows", 1_000_000, 1), "scan", 100.0),
        (Case("rows", 1_000_000, 1), "msgspec Raw", 900.0),
        (Case("json", 100, 1, tools=1000), "list_tools", 100.0),
        (Case("json", 100, 1, tools=1000), "mcp list_tools", 2500.0),
        (SMALL, "2025-11-25", 10.0),
        (SMALL, "2026-07-28", 12.0),
        *((SMALL, fleet, cost) for fleet, cost in zip(FLEETS, (10.0, 11.0, 14.0), strict=True)),
    ]:
        samples.add(case, "uvloop", client, measured(cost), None)
    opened = {"open_cpu_s": 0.5, "open_kb": 15_000, "called_kb": 25_000}
    extras = {
        "sessions": 1000,
        "sdk_sessions": 10,
        "shared_rounds": [opened],
        "own_rounds": [{"failed": "it broke"}],
        "sdk_rounds": [{"open_cpu_s": 0.25, "open_kb": 9000, "called_kb": 9000}],
        "memory execute_raw": {"growth_kb": 2000},
    }
    found = [(each.value, each.limit, each.met) for each in evaluate(samples, extras, ["uvloop"])]
    assert found == [
        (pytest.approx(0.15), 0.2, True),
        (pytest.approx(1000 / 15), 50, True),
        (pytest.approx(1.5), 1.5, True),
        (pytest.approx(4.5), 3, False),
        (50, 60, True),
        (1.25, 1.2, False),
        (3, 2, True),
        (9, 8, True),
        (25, 20, True),
        (1.2, 1.15, False),
        (1.1, 1.3, True),
        (1.4, 1.3, False),
        (50, 25, True),
        (15, 20, True),
        (25, 20, False),
        (None, 25, None),
        (None, 20, None),
        (None, 20, None),
        (2.048, 3, True),
    ]


def test_every_comparison_of_the_targets_is_measured_once() -> None:
    both = comparisons(["asyncio", "uvloop"])
    assert len(both) == len(set(both))
    assert {each.loop for each in both} == {"asyncio", "uvloop"}
    assert comparisons(["asyncio"])[-1].loop == "asyncio"


def test_the_chart_is_xml_whatever_it_says_and_its_bars_grow_with_the_cost() -> None:
    samples = samples_of(SMALL, "asyncio", **{"mcp": [1000.0], "aiohttp + orjson": [100.0], "execute_raw": [9.5]})
    root = ElementTree.fromstring(chart(samples, list(CLIENTS), ABOUT))
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3
    # On a logarithmic scale a factor of ten has the same length wherever it is.
    assert widths[0] - widths[1] == pytest.approx((widths[0] - widths[2]) / 2.0223, rel=1e-3)
    assert max(float(bar.attrib["x"]) + float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")) < 840
    text = " ".join(each.text or "" for each in root.iter(f"{SVG}text"))
    assert "<a & b>, 2 cores" in text and "2026-01-02" in text and "9.5 µs" in text
