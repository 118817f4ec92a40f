"""The checkout that the benchmark is run in, and what a process of the benchmark needs to find its modules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import mcp_manager

__all__ = ["BUILT", "PROFILE", "ROOT", "child_environment"]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder of the checkout, in which ``benchmarks`` is."""

PROFILE: Final = "sanitize" if "asan" in os.environ.get("LD_PRELOAD", "") else "release"
"""How the server is compiled: with sanitizers for a process that runs under AddressSanitizer, as those of the fuzzer do."""

BUILT: Final = ROOT / "build" / "benchmarks" / PROFILE
"""Where the server is, once it is compiled."""


def child_environment() -> dict[str, str]:
    """Return the environment in which ``python -P -m benchmarks.…`` finds its modules and the package that this process uses."""
    package_parent = str(Path(mcp_manager.__file__).resolve().parents[1])
    # Last: installed, it is site-packages, which must not overtake what the user put in front of it. The checkout comes
    # after it, because the package in there may not be compiled.
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), package_parent, str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
