"""``python -m mcp_manager``, which is the same as ``mcp-manager``."""

from __future__ import annotations

import sys

from mcp_manager.cli import main

if __name__ == "__main__":
    sys.exit(main())
