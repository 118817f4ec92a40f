"""The files of MCP clients: their formats as data, and how their servers become servers of ours."""
