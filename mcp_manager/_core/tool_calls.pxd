"""What the compiled call path asks about calls of tools."""

from mcp_manager._core.jsonrpc cimport Message
from mcp_manager._core.records cimport Lease
from mcp_manager._core.tool_table cimport ToolTable

cdef void name_call(ToolTable table, Lease lease, object request) noexcept
cdef bint is_tool_error(Message reply) noexcept
