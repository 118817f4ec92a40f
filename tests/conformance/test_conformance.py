"""The official conformance suite, run against the manager: every scored scenario, and every other one there is."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.conformance import SUITE, required, results_in, unmet
from support.node import node_program
from support.preloaded import preloaded

CLIENT: Final = Path(__file__).with_name("client.py")
SCORED: Final = {"2025-11-25": 18, "2026-07-28": 32}
UNSCORED: Final = 7
# In no requirement set; those for hosts of skills that are not run have nothing to do with a client (see the manual).
ALONE: Final = (
    "auth/2025-03-26-oauth-metadata-backcompat",
    "auth/2025-03-26-oauth-endpoint-fallback",
    "sep-2640-client-no-prefetch",
)
HOSTS_DUTIES: Final = {
    f"sep-2640-client-verify-{what}": "whoever loads a skill verifies it; a manager passes skills through"
    for what in ("digest", "size", "frontmatter")
}
MAY_FAIL: Final = frozenset(
    {
        "auth/iss-supported-missing",
        "auth/iss-wrong-issuer",
        "auth/iss-unexpected",
        "auth/iss-normalized",
        "auth/metadata-issuer-mismatch",
        "auth/resource-mismatch",
        "auth/scope-retry-limit",
    }
)
"""Scenarios in which the right thing to do is to refuse, so that the client's program ends with an error."""

KNOWN_GAPS: Final[dict[str, str]] = {}
"""What does not pass, and why; asserted in both directions."""

# All clients of a set start at once, on whatever cores there are.
CLIENT_TIMEOUT_S: Final = 120
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def suite() -> list[str]:
    return node_program(SUITE)


@pytest.fixture(scope="module")
def client() -> Iterator[str]:
    """The command of the client, which imports what all clients import once."""
    with preloaded(
        "mcp_manager.transports.http.transport", "mcp_manager.auth.oauth.flow", "mcp_manager:McpManager"
    ) as command:
        yield shlex.join([*command, str(CLIENT)])


def run(suite: list[str], client: str, results: Path, *selection: str) -> tuple[int, dict[str, Path]]:
    """Run scenarios; return the suite's exit status and where the results of each are."""
    done = subprocess.run(
        [
            *suite,
            "client",
            *("--command", client),
            *("--timeout", str(CLIENT_TIMEOUT_S * 1000)),
            *("--output-dir", str(results)),
            *selection,
        ],
        cwd=CLIENT.parents[2],
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S + 60,
        check=False,
    )
    written = results_in(results)
    assert written, done.stderr[-2000:]
    return done.returncode, written


def shortcomings(scenario: str, results: Path) -> list[str]:
    """Say what is wrong with a scenario's results."""
    wrong = unmet(results)
    failed = "Traceback" in (errors := (results / "stderr.txt").read_text(encoding="utf-8"))
    if failed and scenario not in MAY_FAIL:
        wrong.append(f"the client failed: {errors.strip().splitlines()[-1]}")
    return wrong


@pytest.mark.parametrize("revision", SCORED)
def test_a_revision_is_met(suite: list[str], client: str, revision: str, tmp_path: Path) -> None:
    scored = required(suite, revision, "client")
    assert len(scored) == SCORED[revision]
    status, results = run(suite, client, tmp_path, "--requirements", revision)
    assert len(results) == SCORED[revision] + UNSCORED
    assert scored <= results.keys()
    wrong = {name: found for name, where in results.items() if (found := shortcomings(name, where))}
    unexpected = {name: found for name, found in wrong.items() if not is_gap(name)}
    assert unexpected == {}
    assert {name for name in results if is_gap(name)} == wrong.keys(), "these pass now: take them out of KNOWN_GAPS"
    assert status == (1 if scored & wrong.keys() else 0)


@pytest.mark.parametrize("scenario", ALONE)
def test_a_scenario_of_no_set_is_met(suite: list[str], client: str, scenario: str, tmp_path: Path) -> None:
    status, results = run(suite, client, tmp_path, "--scenario", scenario)
    found = shortcomings(scenario, results[scenario])
    assert (not found, status == 0) == (not is_gap(scenario), not is_gap(scenario)), found


def test_no_scenario_is_overlooked(suite: list[str]) -> None:
    done = subprocess.run([*suite, "list", "--client"], capture_output=True, text=True, timeout=60, check=True)
    offered = set(re.findall(r"^  - (\S+)", done.stdout, re.MULTILINE))
    covered = set().union(*(required(suite, revision, "client") for revision in SCORED), ALONE, HOSTS_DUTIES)
    unscored = offered - covered
    assert len(unscored) == UNSCORED, unscored


def is_gap(scenario: str) -> bool:
    """Tell whether a scenario is known not to pass."""
    return scenario in KNOWN_GAPS
