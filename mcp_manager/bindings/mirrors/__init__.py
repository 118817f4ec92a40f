"""The mirrors of ``McpManager`` and of its calls for callers.

Beside this file are stubs for type checkers and editors. ``python -m support.mirror_stubs`` writes them, in ``tests``.
"""

from __future__ import annotations

from mcp_manager.bindings.mirror import mirror
from mcp_manager.calls.for_caller import ForCaller
from mcp_manager.manager import McpManager

__all__ = ["ForCallerMirror", "McpManagerMirror"]

McpManagerMirror = mirror(McpManager)
ForCallerMirror = mirror(ForCaller)
