"""Counts the calls of tools: by name for those used most recently, all others of a server together."""

from typing import Final, Self, final

__pyx_capi__: dict[str, object]
OTHER_TOOL_NAME: Final[str]
"""Stands for all tools of a server that are not counted by name."""
LONGEST_TOOL_NAME: Final[int]
"""A longer name, in bytes of UTF-8, is counted under :data:`OTHER_TOOL_NAME`."""

@final
class ToolTable:
    """The tools that were used most recently, each with its counters.

    When the table is full, a new tool takes the place of the one whose last use is the longest ago; the counts of that
    one are added to its server's :data:`OTHER_TOOL_NAME`, so that the sum over the tools stays that of the server.

    Parameters
    ----------
    capacity
        How many tools it holds, at least 1.

    Raises
    ------
    ValueError
        ``capacity`` is below 1.
    """

    def __new__(cls, capacity: int) -> Self: ...
    @property
    def capacity(self) -> int:
        """How many tools it can hold."""

    def __len__(self) -> int:
        """Return how many tools it holds."""
