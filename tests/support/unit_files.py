"""Unit files of systemd in the recipes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["UnitFile", "analyze"]


class UnitFile:
    """The settings of a unit file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if re.match(r"\w+=", line)]

    def __getitem__(self, name: str) -> str:
        [value] = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        """The values of a setting that may be there several times."""
        return [line.partition("=")[2] for line in self.lines if line.startswith(f"{name}=")]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze``; skip the test where it is not installed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here (on Debian: apt install systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)
