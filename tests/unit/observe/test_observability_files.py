"""The dashboards, rules and configuration of ``examples/observability``, as files: complete, and consistent with the code."""

from __future__ import annotations

import ast
import itertools
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.observability_files import DASHBOARDS, FOLDER, dashboard, label_queries, panels_of, rules, selectors_of

from mcp_manager import load_manager_config
from mcp_manager.cli.manual import topics
from mcp_manager.observe.metric_families import FAMILIES
from mcp_manager.telemetry import conventions

ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
BOTH = pytest.mark.parametrize("name", DASHBOARDS)
# What Prometheus itself adds.
TARGET_LABELS = {"job", "instance"}
OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate"}, "target_info": {"service_version"}}
OUR_OWN = {"server_id", "job"}


def scraped_names() -> dict[str, set[str]]:
    """The labels of every series that is scraped, by name."""
    found: dict[str, set[str]] = {}
    for family in FAMILIES:
        labels = set(family.labels)
        match family.kind.__name__:
            case "CounterMetricFamily":
                found[f"{family.name}_total"] = labels
            case "HistogramMetricFamily":
                found |= {f"{family.name}_bucket": labels | {"le"}}
                found |= {f"{family.name}_{part}": labels for part in ("count", "sum")}
            case "InfoMetricFamily":
                found[f"{family.name}_info"] = labels | {"version", "python"}
            case _:
                found[family.name] = labels
    return found


def exported_names() -> dict[str, set[str]]:
    """The labels of every series that Prometheus makes of what is exported, by name: any attribute."""
    attributes = {value for value in vars(conventions).values() if isinstance(value, str) and "." in value}
    labels = {re.sub(r"\W", "_", each) for each in attributes}
    endings = {"total": "_total", "level": "", "durations": ""}
    units = {"s": "_seconds"}
    return {
        family.name.replace(".", "_") + units.get(family.unit, "") + endings[family.kind]: labels
        for family in conventions.FAMILIES
    }


def unknown_parts(expression: str, known: dict[str, set[str]]) -> list[str]:
    """Return the metrics of an expression that nobody knows, and the labels that they do not have."""
    found = []
    for selector in selectors_of(expression):
        name, _, conditions = selector.partition("{")
        if name not in known:
            found.append(name)
            continue
        labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', conditions))
        found += [f"{name}{{{label}}}" for label in labels - known[name] - TARGET_LABELS]
    return found


# Dashboards


def test_the_committed_dashboards_are_those_that_the_program_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in (FOLDER / "grafana").glob("*.py"):
        shutil.copy(source, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("panels", "fleet_panels", "server_panels"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_path(str(tmp_path / "dashboards.py"), run_name="__main__")
    for module in ("panels", "fleet_panels", "server_panels"):
        monkeypatch.delitem(sys.modules, module)
    for path in DASHBOARDS.values():
        assert path.read_text(encoding="utf-8") == (tmp_path / path.name).read_text(encoding="utf-8"), path.name


@BOTH
def test_a_dashboard_can_be_imported_anywhere(name: str) -> None:
    board = dashboard(name)
    assert re.fullmatch(r"mcp-manager-[a-z-]{1,28}", board["uid"])
    # A newer schema would not be read by Grafana 10.
    assert board["schemaVersion"] == 38
    assert "id" not in board
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "job", "server_id"]
    found = list(panels_of(name))
    assert {panel["type"] for panel in found} <= {"stat", "timeseries", "bargauge", "heatmap", "table"}
    for part in itertools.chain(found, *(panel["targets"] for panel in found)):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert dashboard("scraped")["uid"] != dashboard("otlp")["uid"]


@BOTH
def test_every_panel_explains_itself(name: str) -> None:
    for panel in panels_of(name):
        assert panel["title"], panel
        assert 20 < len(panel["description"]) < 250 and panel["description"].endswith("."), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in ("none", "short", "s", "percentunit", "reqps", "ops"), panel["title"]
        steps = defaults["thresholds"]["steps"]
        assert steps[0]["value"] is None
        values = [step["value"] for step in steps[1:]]
        assert values == sorted(values), panel["title"]
        legends = [target["legendFormat"] for target in panel["targets"]]
        if panel["type"] != "table":
            assert len(set(legends)) == len(legends), panel["title"]
            assert panel["type"] == "heatmap" or "__auto" not in legends, panel["title"]
        for target in panel["targets"]:
            grouped = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            named = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert grouped <= named, f"{panel['title']}: the legend shows what the query drops"


@BOTH
def test_panels_neither_overlap_nor_stick_out(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    ids = set()
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        ids.add(panel["id"])
        cells = itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
        for cell in cells:
            assert cell not in taken, f"{panel['title']} covers {taken[cell]}"
            taken[cell] = panel["title"]
    assert len(ids) == len(dashboard(name)["panels"])


@BOTH
def test_queries_name_only_what_there_is(name: str) -> None:
    known = (scraped_names() if name == "scraped" else exported_names()) | OF_PROMETHEUS
    asked = [target["expr"] for panel in panels_of(name) for target in panel["targets"]]
    asked += [selector for selector, _ in label_queries(name).values()]
    assert {expression: unknown for expression in asked if (unknown := unknown_parts(expression, known))} == {}
    assert all(selectors_of(expression) for expression in asked)


# Rules


def test_rules_name_only_what_there_is() -> None:
    known = scraped_names() | OF_PROMETHEUS | dict.fromkeys(RECORDED, OUR_OWN)
    found = {rule["expr"]: unknown for rule in rules() if (unknown := unknown_parts(rule["expr"], known))}
    assert found == {}


def test_every_recorded_series_is_used() -> None:
    used = {selector.partition("{")[0] for rule in rules() for selector in selectors_of(rule["expr"])}
    assert RECORDED <= used


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert 20 < len(told["summary"]) < 100 and told["summary"].endswith(".")
    assert 80 < len(told["description"]) < 400
    path, _, anchor = told["runbook_url"].partition("#")
    assert path == "mcp_manager/README.md"
    assert anchor == rule["alert"].lower()
    assert anchor in anchors_of_alerts()


def anchors_of_alerts() -> list[str]:
    """The anchors of the headings in the section Alerts of the manual."""
    return [heading.lower() for heading in re.findall(r"^### (\w+)$", topics()["alerts"].text, re.MULTILINE)]


def test_the_manual_explains_no_alert_that_does_not_exist() -> None:
    assert sorted(anchors_of_alerts()) == sorted({rule["alert"].lower() for rule in ALERTS})


def test_every_alert_is_tried_firing_and_not_firing() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    fires: dict[str, set[str]] = {}
    for test in tests:
        series = {each["series"] for each in test["input_series"]}
        for asked in test["promql_expr_test"]:
            match = re.search(r'alertname="(\w+)"', asked["expr"])
            for sample in asked["exp_samples"] if match is not None else ():
                fires.setdefault(match[1], set()).add(re.findall(r'severity="(\w+)"', sample["labels"])[0])  # type: ignore[index]
                assert "bad" in sample["labels"]
        assert any('"good"' in each for each in series) or "over as soon" in test["name"], test["name"]
    expected: dict[str, set[str]] = {}
    for rule in ALERTS:
        expected.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    assert fires == expected


# The other files


def test_the_files_fit_together() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    assert [(FOLDER / each).exists() for each in config["rule_files"]] == [True]
    (job,) = config["scrape_configs"]
    assert selectors_of(next(rule for rule in ALERTS if rule["alert"] == "McpMetricsMissing")["expr"]) == [
        f'up{{job="{job["job_name"]}"}}'
    ]
    source = ast.parse((FOLDER / "serve_metrics.py").read_text(encoding="utf-8"))
    (port,) = (
        node.value.value
        for node in source.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "PORT"
        and isinstance(node.value, ast.Constant)
    )
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]
    # The objective of the dashboards and that of the alerts.
    panels = runpy.run_path(str(FOLDER / "grafana" / "panels.py"))
    burns = [rule["expr"] for rule in ALERTS if rule["alert"] == "McpErrorBudgetBurn"]
    assert all(f"* {1 - panels['OBJECTIVE']:.4g})" in each for each in burns)


def test_the_configuration_in_the_description_loads(tmp_path: Path) -> None:
    (text,) = re.findall(
        r"^```toml\n(.*?)^```$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "fleet.toml"
    path.write_text(text + '\n[servers.a]\nurl = "https://a.test/mcp"\n', encoding="utf-8")
    telemetry = load_manager_config(path).telemetry
    assert telemetry.metrics
    assert telemetry.buckets in (None, "exponential")


def test_the_links_of_the_description_lead_somewhere() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = FOLDER / path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], link
    listed = set(re.findall(r"^\| \[([^]]+)\]", text, re.MULTILINE))
    there = {
        str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    }
    assert listed == there - {
        "README.md",
        *(f"grafana/{name}.py" for name in ("panels", "fleet_panels", "server_panels")),
    }
