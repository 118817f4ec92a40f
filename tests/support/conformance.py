"""The official conformance suite: what a revision requires, and what is wrong with the results of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["SUITE", "required", "results_in", "unmet", "unscored"]

SUITE: Final = "@modelcontextprotocol/conformance"

Leg = Literal["client", "server"]


def required(suite: list[str], revision: str, leg: Leg) -> set[str]:
    """Read which scenarios a revision requires."""
    section = re.search(rf"^{leg}:\n((?:  - \S+\n)+)", _requirements(suite, revision), re.MULTILINE)
    assert section is not None
    return set(re.findall(r"- (\S+)", section[1]))


def unscored(suite: list[str], revision: str, leg: Leg) -> set[str]:
    """Read which further scenarios run with those that a revision requires."""
    return set(re.findall(rf"- scenario: (\S+)\n    leg: {leg}\n", _requirements(suite, revision)))


def results_in(directory: Path) -> dict[str, Path]:
    """Return where the results of each scenario of a run are; the suite adds the time to the names."""
    return {
        re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", each.parent.relative_to(directory).as_posix()): each.parent
        for each in directory.rglob("checks.json")
    }


def unmet(results: Path) -> list[str]:
    """Say which checks of a scenario's results are not met; a warning counts, too."""
    checks: list[dict[str, Any]] = json.loads((results / "checks.json").read_text(encoding="utf-8"))
    wrong = [
        f"{check['status']} {check['id']}: {check.get('errorMessage') or check['description']}"
        for check in checks
        if check["status"] not in ("SUCCESS", "INFO", "SKIPPED")
    ]
    if not any(check["status"] == "SUCCESS" for check in checks):
        wrong.append("nothing was checked")
    return wrong


def _requirements(suite: list[str], revision: str) -> str:
    return (Path(suite[-1]).parents[1] / "requirements" / f"{revision}.yaml").read_text(encoding="utf-8")
