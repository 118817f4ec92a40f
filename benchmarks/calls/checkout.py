"""Where the checkout is, and the environment in which the benchmark's processes find their modules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import mcp_manager

__all__ = ["BUILT", "PROFILE", "ROOT", "child_environment"]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder of the checkout, which contains ``benchmarks``."""

PROFILE: Final = "sanitize" if "asan" in os.environ.get("LD_PRELOAD", "") else "release"
"""How the server is compiled: with sanitizers if this process runs under AddressSanitizer, as the fuzzer's do."""

BUILT: Final = ROOT / "build" / "benchmarks" / PROFILE
"""The folder of the compiled server."""


def child_environment() -> dict[str, str]:
    """Return an environment in which ``python -P -m benchmarks.…`` finds its modules and this process's package."""
    package_parent = str(Path(mcp_manager.__file__).resolve().parents[1])
    # Last, since an installed package is in site-packages, which must not come before what the user has put there. The
    # checkout comes after it, since the package in it may not be compiled.
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), package_parent, str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
