# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager.bindings.mirrors.tools import ToolVerbsMirror

class DeployedServersMirror(ToolVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`DeployedServers`, for callers on any thread and loop."""
