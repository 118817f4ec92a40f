"""Layout of what reads by turns."""

from mcp_manager._core.deadlines cimport Deadline


cdef class PacedReader(Deadline):
    cdef readonly object transport
    # Of the loop, by which floods are read; None for no bound.
    cdef object turns
    # Not read until its turn comes; and whether it ever had to wait since it was last idle.
    cdef readonly bint paused
    cdef bint in_turns
    # What the end of the connection came with, while there is something to read from before.
    cdef tuple ended

    cdef object pause(self)
    cdef object leave_turns(self)
    cdef bint catch_up(self) except -1
    cdef object caught_up(self)
