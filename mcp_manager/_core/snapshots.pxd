"""C interface of the snapshots."""

from libc.stdint cimport int64_t

from mcp_manager._core.records cimport Backend, Server
from mcp_manager._core.tool_table cimport ToolTable

cdef str OTHER
cdef tuple snapshot_methods(Server server)
cdef tuple snapshot_tools(ToolTable table, Server server)
cdef tuple gauges_of(Server server, list backends, int64_t now_ns)
cdef object snapshot_backend(Backend backend, int64_t now_ns)
cdef object snapshot_server(Server server, int64_t now_ns)
cdef dict tier_loads(Server server)
