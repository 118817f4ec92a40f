"""Every example runs as it stands, from any directory, and leaves nothing running."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.orphans import no_orphans

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

SAYS = {
    "mcp_manager_python_example.py": (
        "calculator-1  calculator-server  computation  Healthy",
        "healthy servers: 3/3",
        '"result": {}',
        "2 + 3 = 5",
        "local-1 runs 3 instances, is Healthy and answers: call 0, call 1, call 2",
        "bad config:         ConfigError, delivery not_sent",
        "unknown server:     ServerNotFoundError, delivery not_sent",
        "unreachable server: ConnectError, delivery not_sent",
        "deadline:           DeadlineExceededError, delivery unknown",
        "the server's own error: Method not found: no/such/method",
        'mcp_requests_total{method="ping",server_id="calculator-1",status="success"} 1.0',
        "servers left: 0",
        "echo-1        hello echo-1",
        "non-existent  ServerNotFoundError",
        "after stop(): The manager is stopped",
    ),
    "mcp_deployment_automation.py": (
        "Deploying 3 servers from fleet.toml",
        "3 of 3 Healthy",
        "add, echo, sleep on each of 3 servers",
        "search-2 is Unhealthy after 3 failed attempts, the others answer",
        "Healthy -> Degraded -> Healthy, 2/2 ready; ",
        "refused (ConnectError), search-1 still answers",
        "replaced search-2; changed in place: local",
        "search-2  search, moved         http       Healthy    Closed   1/1",
        "local     local                 stdio      Healthy    Closed   3/3",
        "All steps succeeded",
    ),
    "self_healing_fleet.py": (
        "Healthy, 4 instances",
        "replaced after",
        "4 -> 6 instances",
        "6 -> 2 instances",
        "release 2, 2 of 2 processes replaced",
        "Every call was answered",
    ),
    "gateway.py": (
        "everything: archive__add, archive__echo, archive__sleep, office__add, office__echo, office__sleep",
        "support: add, repeat",
        "archive: echo, add, sleep",
        "archive__add: 5",
        "repeat: hello",
    ),
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


# The slow one waits until a server that failed has settled, ten seconds later.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "mcp_deployment_automation.py" else ()) for name in SAYS],
)
def test_an_example_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    with no_orphans():
        done = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / name)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    for line in SAYS[name]:
        assert line in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 140
    assert list(tmp_path.iterdir()) == []


def test_the_fleet_for_the_dashboard_serves_metrics(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "observability" / "serve_metrics.py"), "--port", "0"]
    with (
        no_orphans(),
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program,
    ):
        try:
            assert program.stdout is not None
            address = re.fullmatch(r"Metrics: (http://127\.0\.0\.1:\d+/metrics) .*\n", program.stdout.readline())
            assert address is not None
            page = ""
            # Each scrape comes after some more calls; an equal one within a second is answered with the same page.
            while not all(
                f'mcp_requests_total{{method="tools/call",server_id="{name}"' in page for name in ("math", "narrow")
            ):
                with urllib.request.urlopen(address[1], timeout=30) as response:
                    page = response.read().decode()
            program.send_signal(signal.SIGINT)
            assert program.wait(30) == 0
            assert program.stderr is not None
            assert program.stderr.read() == ""
        finally:
            program.kill()
