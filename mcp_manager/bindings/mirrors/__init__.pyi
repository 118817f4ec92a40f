# Written by tests/support/mirror_stubs.py: do not edit.

from mcp_manager.bindings.mirrors.for_caller import ForCallerMirror as ForCallerMirror
from mcp_manager.bindings.mirrors.manager import McpManagerMirror as McpManagerMirror

__all__ = ["ForCallerMirror", "McpManagerMirror"]
