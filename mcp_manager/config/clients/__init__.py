"""The files of MCP clients: their formats as data, and how their servers become servers of ours."""

from __future__ import annotations

from mcp_manager.config.clients.importing import (
    ImportedFleet,
    ImportedServer,
    NeededVariable,
    fleet_toml,
    import_fleet,
    write_fleet_file,
)
from mcp_manager.config.clients.locations import ClientFile, find_client_files

__all__ = [
    "ClientFile",
    "ImportedFleet",
    "ImportedServer",
    "NeededVariable",
    "find_client_files",
    "fleet_toml",
    "import_fleet",
    "write_fleet_file",
]
