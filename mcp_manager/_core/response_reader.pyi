"""What the head of a response says, field by field, of which those are kept that decide anything."""

from mcp_manager._core.paced import PacedReader

class ResponseReader(PacedReader):
    """Keep what the head of a response says, until its body is there."""
