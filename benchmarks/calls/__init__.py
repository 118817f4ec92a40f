"""What a call costs, beside the clients one would use instead: the work behind ``python -m benchmarks``."""

from __future__ import annotations

from benchmarks.calls.checkout import BUILT

# The compiled server is not beside its source; ``build`` makes it.
__path__.append(str(BUILT))
