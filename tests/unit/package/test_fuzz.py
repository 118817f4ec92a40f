"""A short run of the fuzzing, the same each time; ``python -m tests.fuzz`` goes on from there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_short_run_of_every_target_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "1", "--sequences", "25"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert run.stdout.count("25 sequences from seed 1") == 9
