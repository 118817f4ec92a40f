"""A server that writes to its stderr, a credential included, as servers of others may do."""

from __future__ import annotations

import os
import sys

from mcp_manager.cli.demo_servers import stdio_server

if __name__ == "__main__":
    print("listening; the printer's token is", os.environ.get("PRINTER_TOKEN"), file=sys.stderr, flush=True)
    sys.exit(stdio_server.main())
