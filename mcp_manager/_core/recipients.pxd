"""Layout of those who wait for replies, for what reads and what takes them."""

from mcp_manager._core.response_reader cimport ResponseReader


cdef class Recipient:
    # The reply of the exchange; called once, when all that was received with it is parsed.
    cdef object take_reply(self, object reply)
    # A future that the outcome of the exchange arrives in, if anything else comes than a reply that can be taken now.
    cdef object take_future(self, object future)


cdef class AwaitedReader(ResponseReader):
    cdef object create_future
    # At most one of these waits for the exchange under way.
    cdef object future
    cdef Recipient recipient
    # Gets the reply that has come when all that was received with it is parsed.
    cdef Recipient due
    cdef object due_reply
    cdef bint receiving

    # None for a recipient.
    cdef object expect(self, Recipient recipient)
    cdef bint is_awaited(self) noexcept
    cdef object promise(self, Recipient recipient)
    cdef object fulfil(self, object reply)
    cdef object waiting(self)
    cdef object hand_over(self)
