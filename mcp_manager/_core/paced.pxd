"""Layout of readers that read in time slices."""

from mcp_manager._core.deadlines cimport Deadline


cdef class PacedReader(Deadline):
    cdef readonly object transport
    # The loop's read budget, which bounds the reading of floods; None sets no bound.
    cdef object turns
    # Whether it waits for a time slice; whether it ever had to since it was last idle.
    cdef readonly bint paused
    cdef bint in_turns
    # Arguments of connection_lost(), kept while data received before is still to be handled.
    cdef tuple ended

    cdef object pause(self)
    cdef object leave_turns(self)
    cdef bint catch_up(self) except -1
    cdef object caught_up(self)
