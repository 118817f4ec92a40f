"""Who reads from a connection, and stops where a turn of the loop has no time left for what nobody asked for."""

from mcp_manager._core.deadlines cimport Deadline
from mcp_manager._core.sealing cimport seal


cdef class PacedReader(Deadline):
    cdef object pause(self):
        """Read no more until it is this one's turn: the connection holds the server back."""
        self.paused = self.in_turns = True
        self.transport.pause_reading()
        self.turns.wait(self)

    cdef object leave_turns(self):
        """Wait for no turn any more, and learn of the end that came meanwhile."""
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
        """Take what was received before; tell whether nothing of it is left."""
        return True

    cdef object caught_up(self):
        """Go on where the pause began."""
        pass


seal(PacedReader)
