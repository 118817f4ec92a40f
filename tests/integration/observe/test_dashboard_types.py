"""The dashboards have the types that Grafana publishes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from support.grafana import type_errors
from support.observability_files import DASHBOARDS, dashboard


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_part_of_a_dashboard_has_the_type_that_grafana_publishes(name: str, tmp_path: Path) -> None:
    assert type_errors(dashboard(name), tmp_path) == ""


def test_a_wrong_option_would_be_found(tmp_path: Path) -> None:
    board = copy.deepcopy(dashboard("scraped"))
    panel = next(each for each in board["panels"] if each["type"] == "stat")
    panel["options"]["colorMode"] = "colourful"
    panel["fieldConfig"]["defaults"]["thresholds"]["modus"] = "absolute"
    found = type_errors(board, tmp_path)
    assert found.count("error TS") == 2
    assert '"colourful"' in found
    assert "'\"modus\"' does not exist" in found
