"""Reads the head of a response field by field, and keeps the fields that are used."""

from typing_extensions import disjoint_base

from mcp_manager._core.paced import PacedReader

@disjoint_base
class ResponseReader(PacedReader):
    """Keep the fields of a response's head until the body has arrived."""
