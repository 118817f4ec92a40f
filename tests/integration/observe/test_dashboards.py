"""The dashboards and rules of ``examples/observability``: a real Prometheus answers every query of theirs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.collector import Answer, Collector
from support.eventful_fleet import EventfulFleet, served_metrics
from support.observability_files import FOLDER, label_queries, questions_of, rules, selectors_of
from support.prometheus import Prometheus, prometheus_unavailable, promtool
from support.remote_write import HEADERS, as_series, written

from mcp_manager import ManagerConfig, McpManager, TelemetryConfig
from mcp_manager.runtime import read_budget

WAIT_S = 60.0
SOON = "500ms"

pytestmark = pytest.mark.skipif(bool(prometheus_unavailable()), reason=prometheus_unavailable() or "never")


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(FOLDER / "rules.yaml"))
    assert "is valid prometheus config" in promtool("check", "config", str(FOLDER / "prometheus.yaml"))


@pytest.mark.slow
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(FOLDER / "rules_test.yaml"))


async def all_answered(
    prometheus: Prometheus, asked: dict[str, tuple[str, ...]], happen: Callable[[], Awaitable[None]]
) -> None:
    """Have everything happen until every question has an answer: until one of its expressions has one."""
    ends = time.monotonic() + WAIT_S
    while asked:
        assert time.monotonic() < ends, f"no answer to {asked}"
        await happen()
        asked = {name: each for name, each in asked.items() if not [one for one in each if await prometheus.ask(one)]}


@pytest.mark.slow
async def test_every_query_on_scraped_metrics_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server has to send too much for a moment only.
    monkeypatch.setattr(read_budget, "_FLOOD_NS", 10_000_000)
    with EventfulFleet() as fleet:
        async with McpManager() as manager, served_metrics(manager) as address:
            await fleet.deploy(manager)
            config = {
                "global": {"scrape_interval": SOON, "scrape_timeout": SOON, "evaluation_interval": SOON},
                "rule_files": [str(FOLDER / "rules.yaml")],
                "scrape_configs": [{"job_name": "mcp", "static_configs": [{"targets": [address]}]}],
            }
            async with Prometheus(tmp_path, config) as prometheus:
                server_ids = [view.id for view in manager.servers()]
                missing = {each.panel: each.expressions for each in questions_of("scraped", server_ids)}
                for rule in rules():
                    # An alert has no answer while all is well, and a rate none before there are hours of data.
                    missing |= {selector: (selector,) for selector in selectors_of(rule["expr"])}
                    if "record" in rule:
                        missing[rule["record"]] = (rule["record"],)
                assert len(missing) > 60
                await all_answered(prometheus, missing, lambda: fleet.happen(manager))
                await values_are_offered(prometheus, "scraped", {"job": {"mcp"}, "server_id": set(server_ids)})
                await rules_are_sound(prometheus)


@pytest.mark.slow
async def test_every_query_on_exported_metrics_is_answered(tmp_path: Path) -> None:
    with Collector() as collector, EventfulFleet() as fleet:
        config = ManagerConfig(telemetry=TelemetryConfig(metrics=True, endpoint=collector.url, interval_s=0.25))
        async with McpManager(config) as manager, Prometheus(tmp_path, {}) as prometheus:
            await fleet.deploy(manager)
            server_ids = [view.id for view in manager.servers()]
            missing = {each.panel: each.expressions for each in questions_of("otlp", server_ids)}
            assert len(missing) > 30

            async def happen() -> None:
                # These points are lost.
                collector.script(Answer(400))
                await fleet.happen(manager)
                await passed_on(collector, prometheus)

            await all_answered(prometheus, missing, happen)
            await values_are_offered(prometheus, "otlp", {"job": {"mcp-manager"}, "server_id": set(server_ids)})
            # Its calls sleep for 20 ms; buckets in wrong places would say something else.
            durations = 'mcp_client_operation_duration_seconds{mcp_manager_server_id="narrow"}'
            [slept] = await prometheus.ask(f"histogram_quantile(0.1, {durations})")
            [mean] = await prometheus.ask(f"histogram_sum({durations}) / histogram_count({durations})")
            assert 0.01 < float(slept["value"][1]) < 2 * float(mean["value"][1])


async def passed_on(collector: Collector, prometheus: Prometheus) -> None:
    """Write to Prometheus what has arrived at the collector."""
    while collector.arrived:
        body = written(list(as_series(collector.arrived.pop(0).message)))
        async with prometheus.http.post(f"{prometheus.url}/api/v1/write", data=body, headers=HEADERS) as response:
            assert response.status in (200, 204), await response.text()


async def values_are_offered(prometheus: Prometheus, dashboard: str, expected: dict[str, set[str]]) -> None:
    """Check the values that the variables of a dashboard offer."""
    for variable, (selector, label) in label_queries(dashboard).items():
        offered = await prometheus.get(f"label/{label}/values", **{"match[]": selector})
        assert set(offered) == expected[variable], variable


async def rules_are_sound(prometheus: Prometheus) -> None:
    """Check that Prometheus evaluates all rules, and what it says of alerts."""
    found = [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert [rule["name"] for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []
    alerts: list[dict[str, Any]] = (await prometheus.get("alerts"))["alerts"]
    assert {"McpUnknownDelivery"} <= {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
    for each in alerts:
        told = each["annotations"]["summary"] + each["annotations"]["description"]
        assert each["labels"].get("server_id", each["labels"].get("instance")) in told
        assert "<no value>" not in told and "error expanding" not in told
