"""``python -m benchmarks`` measures what a call costs here, beside other clients."""

from __future__ import annotations

import sys

from benchmarks.calls.command_line import main

if __name__ == "__main__":
    sys.exit(main())
