"""Runs ``python -m benchmarks``, which measures the cost of a call, compared with other clients."""

from __future__ import annotations

import sys

from benchmarks.calls.command_line import main

if __name__ == "__main__":
    sys.exit(main())
