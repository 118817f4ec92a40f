"""The benchmarks. They run in a checkout and are not installed; ``python -m benchmarks`` measures calls."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]

if not any(_ROOT.glob(f"mcp_manager/_core/*{EXTENSION_SUFFIXES[0]}")):
    # ``python -m`` puts the checkout first in the path. The package there is not compiled, so the installed one must
    # come before it.
    _places = [each for each in sys.path if Path(each).resolve() == _ROOT]
    sys.path[:] = [each for each in sys.path if each not in _places] + _places
