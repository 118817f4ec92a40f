"""What ``examples/observability`` asks Prometheus: the queries of the dashboards, and the rules."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

__all__ = [
    "DASHBOARDS",
    "FOLDER",
    "Question",
    "dashboard",
    "label_queries",
    "panels_of",
    "questions_of",
    "rules",
    "selectors_of",
]

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples" / "observability"
DASHBOARDS: Final = {"scraped": FOLDER / "grafana" / "fleet.json", "otlp": FOLDER / "grafana" / "fleet-otlp.json"}
# What Grafana puts in their places depends on the time range; these fit a short run.
_TIMES: Final = {"$__rate_interval": "10s", "$__interval": "4s", "$__range": "20s"}
_SELECTOR: Final = re.compile(r"(?<![\w:])((?:server:)?mcp_[\w:]+|up|ALERTS|target_info)(?![\w:(])(\{[^}]*\})?")


class Question(NamedTuple):
    """One query of a panel; ``expressions`` has it for each server that may be chosen, and for any job."""

    panel: str
    expressions: tuple[str, ...]


def dashboard(name: str) -> dict[str, Any]:
    """Return a dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARDS[name].read_text(encoding="utf-8"))
    return found


def panels_of(name: str) -> list[dict[str, Any]]:
    """Return the panels of a dashboard, without its rows."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def questions_of(name: str, server_ids: list[str]) -> Iterator[Question]:
    """Yield the queries of all panels, and each of their selectors, with every variable replaced."""
    for panel in panels_of(name):
        for target in panel["targets"]:
            # A part of a query may have no answer while the whole has one.
            for asked in (target["expr"], *selectors_of(target["expr"])):
                yield Question(
                    f"{panel['id']} {panel['title']} {target['refId']}: {asked}", _replaced(asked, server_ids)
                )


def _replaced(expression: str, server_ids: list[str]) -> tuple[str, ...]:
    for variable, value in _TIMES.items():
        expression = expression.replace(variable, value)
    expression = expression.replace("$job", ".+")
    chosen = [expression.replace("$server_id", each) for each in server_ids]
    assert not any("$" in each for each in chosen), expression
    return tuple(dict.fromkeys(chosen))


def label_queries(name: str) -> dict[str, tuple[str, str]]:
    """Return the selector and the label of each variable that asks for the values of a label."""
    found = {}
    for variable in dashboard(name)["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match is not None
            found[variable["name"]] = (match[1].replace("$job", ".+"), match[2])
    return found


def rules() -> list[dict[str, Any]]:
    """Return all rules, recording ones and alerts."""
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return list(itertools.chain.from_iterable(group["rules"] for group in groups))


def selectors_of(expression: str) -> list[str]:
    """Return the selectors of a PromQL expression."""
    ungrouped = re.sub(r"\b(?:by|on|without)\s*\([^)]*\)", "", expression)
    return [name + labels for name, labels in _SELECTOR.findall(ungrouped)]
