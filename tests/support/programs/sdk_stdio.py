"""The official SDK's server over stdio; the argument, if any, is the ledger's path."""

from __future__ import annotations

import sys

from _sdk_tools import build_server

if __name__ == "__main__":
    build_server(sys.argv[1] if len(sys.argv) > 1 else "").run("stdio")
