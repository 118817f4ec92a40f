"""What the head of a response says, field by field, of which those are kept that decide anything."""

from typing_extensions import disjoint_base

from mcp_manager._core.paced import PacedReader

@disjoint_base
class ResponseReader(PacedReader):
    """Keep what the head of a response says, until its body is there."""
