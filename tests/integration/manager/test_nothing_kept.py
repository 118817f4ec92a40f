"""After any end, of a call, a session or a server, nothing of it is held; and failed calls cost the collector nothing.

The scenarios of ``support.endings`` are played in a process of their own, where nothing else is collected.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from support.endings import CYCLIC, SCENARIOS

TESTS: Final = Path(__file__).resolve().parents[2]
_PATIENCE_S: Final = 300.0

pytestmark = pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=pytest.mark.slow)])


@cache
def played(loop: str) -> Any:
    """Play all scenarios on a loop, in a process of its own, and return what each leaves."""
    command = [sys.executable, "-m", "support.endings", loop]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def left_by(scenario: str, loop: str) -> Any:
    if importlib.util.find_spec(loop) is None:
        pytest.skip(f"{loop} is not installed")
    return played(loop)[scenario]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_held(scenario: str, loop: str) -> None:
    left = left_by(scenario, loop)
    assert left["objects"] == {}
    assert left["marks"] == []


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each not in CYCLIC])
def test_a_call_leaves_no_cycle(scenario: str, loop: str) -> None:
    # A transport of uvloop and its protocol refer to each other, also when their connection was never used.
    assert set(left_by(scenario, loop)["cycles"]) <= {"PacedResponses"}


@pytest.mark.parametrize("scenario", sorted(CYCLIC))
def test_what_ends_with_a_session_holds_no_call(scenario: str, loop: str) -> None:
    """A session, its transport and what listens to them refer to each other; a call that ended with it is in no cycle."""
    kept = {
        "Call",
        "DirectCall",
        "Lease",
        "Message",
        "frame of attempts.Attempts.carry",
        "frame of dispatcher.Dispatcher.call",
    }
    assert kept.isdisjoint(left_by(scenario, loop)["cycles"])
