"""Finds the name of the called tool in a request, and ``isError`` in its result, without decoding either."""

from mcp_manager._core.jsonrpc import Message

__pyx_capi__: dict[str, object]

def says_tool_error(reply: Message) -> bool:
    """Return whether a result of ``tools/call`` has ``isError: true`` at its top level.

    In a result of more than 64 KiB, the member is searched for in the first and last 4 KiB only.
    """
