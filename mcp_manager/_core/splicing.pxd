"""What compiled code may put into messages."""

from mcp_manager._core.jsonrpc cimport Message

# A copy of a message with other bytes in a range that is in its params.
cdef Message replaced(Message message, Py_ssize_t start, Py_ssize_t end, bytes value)
