"""The server half of the official conformance suite, through the gateway: each revision, before a server of each era."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from support.conformance import SUITE, required, results_in, unmet, unscored
from support.gateway_process import GatewayProcess
from support.node import node_program
from support.processes import HttpServerProcess

HANDSHAKE: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
ERAS: Final = {"handshake": HANDSHAKE, "stateless": STATELESS}
SCORED: Final = {HANDSHAKE: 30, STATELESS: 37}
UNSCORED: Final = {HANDSHAKE: 3, STATELESS: 13}
SKILLS: Final = tuple(f"sep-2640-skills-{part}" for part in ("enumeration", "manifest", "directory"))
"""In no requirement set; the suite runs them with the stateless revision alone."""
SKIPPED_WHOLE: Final = frozenset({"tasks-status-notifications"})
"""What the suite itself does not run yet."""

_NO_TASKS: Final = "the server speaks a revision without this extension, so it has no tasks that the gateway could show"
KNOWN_GAPS: Final[dict[tuple[str, str], dict[str, str]]] = {
    (STATELESS, "handshake"): {
        f"tasks-{part}": _NO_TASKS
        for part in (
            "lifecycle",
            "capability-negotiation",
            "wire-fields",
            "request-state-removal",
            "mrtr-input",
            "request-headers",
            "dispatch-and-envelope",
            "required-task-error",
            "mrtr-composition",
        )
    }
}
"""What does not pass with a revision before a server of an era, and why; asserted in both directions."""

TIMEOUT_S: Final = 240
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def suite() -> list[str]:
    return node_program(SUITE)


@pytest.fixture(scope="module")
def fixtures(suite: list[str]) -> Iterator[dict[str, HttpServerProcess]]:
    processes = {era: HttpServerProcess("conformance_http.py", "--era", era) for era in ERAS}
    with processes["handshake"], processes["stateless"]:
        yield processes


@pytest.fixture(scope="module")
def gateway(
    fixtures: dict[str, HttpServerProcess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    servers = {era: {"url": process.url} for era, process in fixtures.items()}
    views = {era: {"servers": [era], "names": "short"} for era in ERAS}
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), servers, views=views) as process:
        yield process


def run(suite: list[str], url: str, results: Path, *selection: str) -> tuple[int, dict[str, list[str]]]:
    """Run scenarios against a server; return the suite's exit status, and what is unmet in each scenario."""
    done = subprocess.run(
        [*suite, "server", "--url", url, "--output-dir", str(results), *selection],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    written = results_in(results)
    assert written, done.stderr[-2000:]
    found = {name.removeprefix("server-"): unmet(where) for name, where in written.items()}
    return done.returncode, {name: wrong for name, wrong in found.items() if name not in SKIPPED_WHOLE}


def check(suite: list[str], revision: str, url: str, results: Path, gaps: dict[str, str]) -> None:
    """Check that all scenarios of a revision pass, except those that are known not to."""
    scored = required(suite, revision, "server")
    further = unscored(suite, revision, "server")
    assert (len(scored), len(further)) == (SCORED[revision], UNSCORED[revision])
    assert not scored & gaps.keys()
    status, found = run(suite, url, results, "--requirements", revision)
    assert found.keys() | SKIPPED_WHOLE == scored | further | SKIPPED_WHOLE
    wrong = {name: each for name, each in found.items() if each}
    assert {name: each for name, each in wrong.items() if name not in gaps} == {}
    assert wrong.keys() == gaps.keys(), "these pass now: take them out of KNOWN_GAPS"
    assert status == 0


def at_once(checked: Callable[[str], None], names: Iterable[str] = ERAS) -> None:
    """Check what is named at the same time: the suite waits more than it computes."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(checked, names))


@pytest.mark.slow
def test_the_fixtures_meet_their_own_revisions(
    suite: list[str], fixtures: dict[str, HttpServerProcess], tmp_path: Path
) -> None:
    at_once(lambda era: check(suite, ERAS[era], fixtures[era].url, tmp_path / era, {}))


@pytest.mark.parametrize("revision", SCORED)
def test_a_revision_is_met_through_the_gateway(
    suite: list[str], gateway: GatewayProcess, revision: str, tmp_path: Path
) -> None:
    def meets(era: str) -> None:
        gaps = KNOWN_GAPS.get((revision, era), {})
        check(suite, revision, gateway.url(f"/servers/{era}/mcp"), tmp_path / era, gaps)

    at_once(meets)


@pytest.mark.slow
def test_a_revision_is_met_by_a_view(suite: list[str], gateway: GatewayProcess, tmp_path: Path) -> None:
    def meets(era: str) -> None:
        revision = STATELESS if era == "handshake" else HANDSHAKE
        check(suite, revision, gateway.url(f"/mcp/{era}"), tmp_path / era, KNOWN_GAPS.get((revision, era), {}))

    at_once(meets)


@pytest.mark.slow
@pytest.mark.parametrize("era", ERAS)
def test_skills_pass_through_the_gateway(suite: list[str], gateway: GatewayProcess, era: str, tmp_path: Path) -> None:
    def passes(scenario: str) -> None:
        url = gateway.url(f"/servers/{era}/mcp")
        assert run(suite, url, tmp_path / scenario, "--scenario", scenario) == (0, {scenario: []})

    at_once(passes, SKILLS)


def test_no_scenario_of_servers_is_overlooked(suite: list[str]) -> None:
    done = subprocess.run([*suite, "list", "--server"], capture_output=True, text=True, timeout=60, check=True)
    offered = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  - ")}
    covered = set().union(*(required(suite, each, "server") | unscored(suite, each, "server") for each in SCORED))
    assert offered - covered == set(SKILLS)
