"""What compiled code may look for in the text of calls."""

from libc.stdint cimport uint8_t

from mcp_manager._core.json_text cimport Range
from mcp_manager._core.jsonrpc cimport Message

cdef enum:
    # What a response mentions
    URIS = 1
    TASK = 2
    TYPE = 4
    META = 8

cdef struct CallParams:
    # The text of the name, without its quotes.
    Range name
    # The value of ``_meta``, and all bytes that go if the member goes; -1 without it.
    Range meta
    Range meta_member


cdef bint read_params(Message message, CallParams* found) noexcept
cdef int mentioned(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept
cdef bytes with_members(Message reply, bytes id_raw, bytes server_info)
# Whether a result says at first sight that it is complete.
cdef bint is_evidently_complete(Message reply) noexcept
# The beginning of a response that says that it is complete, up to where the text of the server goes on.
cdef bytes opening_of(Message reply, bytes id_raw, Py_ssize_t* goes_on)
