"""Measures the cost of a call, compared with other clients: the work behind ``python -m benchmarks``."""

from __future__ import annotations

from benchmarks.calls.checkout import BUILT

# The compiled server is not in the folder of its source; ``build`` makes it.
__path__.append(str(BUILT))
