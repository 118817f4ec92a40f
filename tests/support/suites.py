"""Test-suites of users of the package, each run by a pytest of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

__all__ = ["PLUGIN", "run_suite"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_INSTALLED = any(
    each.value == "mcp_manager.pytest_plugin" for each in importlib.metadata.entry_points(group="pytest11")
)
PLUGIN: Final = () if _INSTALLED else ("-p", "mcp_manager.pytest_plugin")
"""Options that load the plugin of this package, where it is not installed."""
_ALL: Final = ("asyncio", "anyio", "benchmark", "timeout", "xdist", "hypothesispytest", "schemathesis", "typeguard")
# With one of these, pytest repeats each message in full in its summary.
_REPORTED_IN_FULL: Final = ("CI", "BUILD_NUMBER")


def run_suite(
    folder: Path, text: str, *options: str, plugins: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a test-suite of one file in a process of its own; of the plugins that are installed, only those given."""
    (folder / "test_suite.py").write_text(textwrap.dedent(text), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"] if "asyncio" in plugins else []
    command += [part for name in _ALL if name not in plugins for part in ("-p", f"no:{name}")]
    command += PLUGIN
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    for name in _REPORTED_IN_FULL:
        environment.pop(name, None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
