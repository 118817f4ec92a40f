# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager.bindings.mirror import Mirror

class LifetimeMirror(Mirror, metaclass=ABCMeta):
    """The public methods of :class:`Lifetime`, for callers on any thread and loop."""

    @property
    def is_running(self) -> bool:
        """Whether it was started in this process, and not stopped."""
