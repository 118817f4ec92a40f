"""Servers that follow a script: what they are told to, instead of answering correctly."""

from __future__ import annotations

from mcp_manager.testing.scripted.connection import Connection, Fault, Request, Unplayable, encode, event, head
from mcp_manager.testing.scripted.server import ScriptedServer

__all__ = ["Connection", "Fault", "Request", "ScriptedServer", "Unplayable", "encode", "event", "head"]
