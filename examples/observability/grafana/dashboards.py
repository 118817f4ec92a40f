"""Write the two Grafana dashboards: ``python examples/observability/grafana/dashboards.py``.

``fleet.json`` shows the metrics that Prometheus scrapes, ``fleet-otlp.json`` those that the manager exports by OTLP and
Prometheus stores. Change the tables of panels and run this again: nothing in the two files is written by hand.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fleet_panels import FLEET, WORST
from panels import Panel, Query
from server_panels import SERVER

FOLDER: Final = Path(__file__).resolve().parent
# Grafana 10.0 reads this version of the schema, and newer versions convert it.
SCHEMA_VERSION: Final = 38
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24


class Variant(NamedTuple):
    """One of the two dashboards.

    ``interval`` is the time between two samples, if it is not that of the data source, from which Grafana takes the window
    of rates; ``bar`` is what one bar covers, several samples. ``server_label`` has the ids of servers; ``jobs`` and
    ``servers`` find the values of the variables.
    """

    file: str
    uid: str
    title: str
    description: str
    is_scraped: bool
    interval: str
    bar: str
    server_label: str
    jobs: str
    servers: str


VARIANTS: Final = (
    Variant(
        "fleet.json",
        "mcp-manager-fleet",
        "MCP fleet",
        "The MCP servers of mcp_manager, from the metrics that Prometheus scrapes.",
        True,
        "",
        "1m",
        "server_id",
        "label_values(mcp_build_info, job)",
        'label_values(mcp_server_state{job=~"$job"}, server_id)',
    ),
    Variant(
        "fleet-otlp.json",
        "mcp-manager-fleet-otlp",
        "MCP fleet (OTLP)",
        "The MCP servers of mcp_manager, from the metrics that it exports by OTLP to Prometheus.",
        False,
        "1m",
        "5m",
        "mcp_manager_server_id",
        "label_values(mcp_manager_servers, job)",
        'label_values(mcp_manager_instances{job=~"$job"}, mcp_manager_server_id)',
    ),
)

# The columns of the table of tools, by query.
TOOL_COLUMNS: Final = {"Value #A": "Calls", "Value #B": "Tool errors", "Value #C": "Other failures", "Value #D": "p99"}


def dashboard(variant: Variant) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": variant.uid,
        "title": variant.title,
        "description": variant.description,
        "tags": ["mcp", "mcp_manager"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "links": [],
        "annotations": {"list": []},
        "templating": {"list": _variables(variant)},
        "panels": list(_placed(variant)),
    }


def _variables(variant: Variant) -> list[dict[str, Any]]:
    source: dict[str, Any] = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "skipUrlSync": False,
    }
    job = _asking("job", "Job", variant.jobs) | {
        "includeAll": True,
        "multi": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    return [source, job, _asking("server_id", "Server", variant.servers)]


def _asking(name: str, label: str, query: str) -> dict[str, Any]:
    """Return a variable with the values that a query finds."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        # When the time range changes, and when the dashboard is opened.
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "skipUrlSync": False,
    }


def _placed(variant: Variant) -> Iterator[dict[str, Any]]:
    """Yield rows and panels with their places, from left to right and from top to bottom."""
    number, top = 1, 0
    for title, panels in (("Fleet", FLEET), ("The ten worst", WORST), ("Server $server_id", SERVER)):
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in panels:
            queries = panel.scraped if variant.is_scraped else panel.exported
            if not queries:
                continue
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_panel(panel, queries, variant)}
            number, left, height = number + 1, left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel, queries: Sequence[Query], variant: Variant) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [
            _target(name, query, variant, is_bar=panel.bars)
            for name, query in zip(string.ascii_uppercase, queries, strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel, variant), "overrides": _overrides(panel, len(queries))},
        "options": OPTIONS[panel.kind](panel, queries),
    }
    if panel.kind == "table":
        told["transformations"] = _transformations(len(queries))
    return told


def _target(name: str, query: Query, variant: Variant, *, is_bar: bool) -> dict[str, Any]:
    return {
        "refId": name,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "format": query.shape,
        "instant": query.now,
        "range": not query.now,
        "interval": variant.bar if is_bar else variant.interval,
    }


def _defaults(panel: Panel, variant: Variant) -> dict[str, Any]:
    steps = panel.steps or (("green", None),)
    told: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]},
        "mappings": _mappings(panel),
        "custom": _custom(panel),
    }
    if panel.kind not in ("table", "heatmap") and panel.least is not None:
        told["min"] = panel.least
    if panel.most is not None:
        told["max"] = panel.most
    if panel.empty is not None:
        told["noValue"] = panel.empty
    if panel.kind == "bargauge":
        places = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}"
        url = f"/d/{variant.uid}?{places}&var-server_id=${{__field.labels.{variant.server_label}}}"
        told["links"] = [{"title": "Show this server", "url": url, "targetBlank": False}]
    return told


def _mappings(panel: Panel) -> list[dict[str, Any]]:
    named = {
        str(value): {"text": text, "color": color, "index": at}
        for at, (value, text, color) in enumerate(panel.mappings)
    }
    return [{"type": "value", "options": named}] if named else []


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind == "heatmap":
        return {"scaleDistribution": {"type": "linear"}, "hideFrom": _NOT_HIDDEN}
    if panel.kind == "table":
        return {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False}
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "bars" if panel.bars else "line",
        "lineInterpolation": "linear",
        "lineWidth": 0 if panel.bars else 1,
        "fillOpacity": 80 if panel.bars else 25 if panel.stacked else 0,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "axisPlacement": "auto",
        "axisLabel": "",
        "scaleDistribution": {"type": "linear"},
        "hideFrom": _NOT_HIDDEN,
        # A line where it becomes serious.
        "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
    }


def _overrides(panel: Panel, queries: int) -> list[dict[str, Any]]:
    """Return the colors of series by name, and the units of a table's columns."""
    fixed = [
        _override(name, {"id": "color", "value": {"mode": "fixed", "fixedColor": color}})
        for name, color in panel.colors.items()
    ]
    if panel.kind != "table" or queries == 1:
        return fixed
    counts: list[dict[str, Any]] = [
        {"id": "unit", "value": "short"},
        {"id": "decimals", "value": 0},
        {"id": "noValue", "value": "0"},
    ]
    columns = [_override(name, *counts) for name in list(TOOL_COLUMNS.values())[:-1]]
    return [*columns, _override(TOOL_COLUMNS["Value #D"], {"id": "unit", "value": "s"})]


def _override(name: str, *properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"matcher": {"id": "byName", "options": name}, "properties": [dict(each) for each in properties]}


def _transformations(queries: int) -> list[dict[str, Any]]:
    """Return what makes one table of the answers to the queries."""
    if queries > 1:
        names = {"tool": "Tool", **TOOL_COLUMNS}
        order = {name: at for at, name in enumerate(names)}
        organized = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
        return [{"id": "merge", "options": {}}, {"id": "organize", "options": organized}]
    hidden = ("Time", "Value", "__name__", "alertstate", "job")
    names = {"alertname": "Alert", "severity": "Severity", "server_id": "Server", "instance": "Process"}
    order = {name: at for at, name in enumerate(names)}
    organized = {"excludeByName": dict.fromkeys(hidden, True), "indexByName": order, "renameByName": names}
    return [{"id": "organize", "options": organized}]


def _stat(panel: Panel, queries: Sequence[Query]) -> dict[str, Any]:
    several = len(queries) > 1 or "{{" in queries[0].legend
    return {
        "reduceOptions": _LATEST,
        "colorMode": "background" if panel.mappings else "value",
        "graphMode": "none" if panel.mappings or several else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value_and_name" if several else "value",
    }


def _lines(panel: Panel, queries: Sequence[Query]) -> dict[str, Any]:
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _bars(panel: Panel, queries: Sequence[Query]) -> dict[str, Any]:
    return {
        "reduceOptions": _LATEST,
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizWidth": 0,
        "minVizHeight": 10,
    }


def _heat(panel: Panel, queries: Sequence[Query]) -> dict[str, Any]:
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit},
    }


def _table(panel: Panel, queries: Sequence[Query]) -> dict[str, Any]:
    return {
        "showHeader": True,
        "cellHeight": "sm",
    }


_LATEST: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_NOT_HIDDEN: Final = {"legend": False, "tooltip": False, "viz": False}
OPTIONS: Final = {"stat": _stat, "timeseries": _lines, "bargauge": _bars, "heatmap": _heat, "table": _table}


def main() -> None:
    """Write the files."""
    for variant in VARIANTS:
        text = json.dumps(dashboard(variant), indent=2, ensure_ascii=False)
        (FOLDER / variant.file).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
