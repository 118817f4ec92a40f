"""A fastmcp server over stdio."""

from __future__ import annotations

from _fastmcp_tools import server

if __name__ == "__main__":
    server.run("stdio", show_banner=False, log_level="ERROR")
