"""The base of readers that pause when an event-loop iteration has no time left for unsolicited messages."""

from mcp_manager._core.deadlines cimport Deadline
from mcp_manager._core.sealing cimport seal


cdef class PacedReader(Deadline):
    cdef object pause(self):
        """Stop reading until the next time slice; flow control of the connection holds the server back."""
        self.paused = self.in_turns = True
        self.transport.pause_reading()
        self.turns.wait(self)

    cdef object leave_turns(self):
        """Stop waiting for a time slice, and handle the end of the connection if it came meanwhile."""
        if self.in_turns:
            self.in_turns = False
            self.turns.leave(self)
            if self.ended is not None:
                self.connection_lost(*self.ended)

    def read_on(self):
        if not self.paused or not self.catch_up():
            return
        self.paused = False
        if self.ended is not None:
            self.connection_lost(*self.ended)
            return
        self.transport.resume_reading()
        self.caught_up()

    cdef bint catch_up(self) except -1:
        """Handle what was received before; return whether nothing of it is left."""
        return True

    cdef object caught_up(self):
        """Continue where the pause began."""
        pass


seal(PacedReader)
