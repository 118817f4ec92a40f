"""Servers in memory: objects of the official SDK or of fastmcp that run in this process, on the manager's loop."""
