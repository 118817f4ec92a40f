"""Who waits for the reply of an exchange: a future, or compiled code that takes it in the same event-loop iteration."""

from mcp_manager._core.sealing cimport seal


cdef class Recipient:
    cdef object take_reply(self, object reply):
        pass

    cdef object take_future(self, object future):
        pass


cdef class AwaitedReader(ResponseReader):
    cdef object expect(self, Recipient recipient):
        """Begin to wait; return a future, ``None`` if there is a recipient."""
        self.recipient = recipient
        self.future = self.create_future() if recipient is None else None
        return self.future

    cdef bint is_awaited(self) noexcept:
        return self.future is not None or self.recipient is not None

    cdef object promise(self, Recipient recipient):
        """Return a future in place of a recipient that waits."""
        future = self.create_future()
        if self.due is recipient:
            future.set_result(self.due_reply)
            self.due = self.due_reply = None
        elif self.recipient is recipient:
            self.recipient = None
            self.future = future
        else:
            raise RuntimeError("the connection carries another exchange")
        return future

    cdef object fulfil(self, object reply):
        """Give the reply to who waits for it."""
        if self.receiving and self.recipient is not None:
            # Not in the middle of what was received: the recipient may send the next request on this connection.
            self.due, self.due_reply = self.recipient, reply
            self.recipient = None
            return
        future = self.waiting()
        if future is not None:
            future.set_result(reply)

    cdef object waiting(self):
        """Return the future of the exchange, and forget it; ``None`` if nobody waits any longer."""
        cdef Recipient recipient = self.recipient
        future = self.future
        self.future = self.recipient = None
        if recipient is not None:
            future = self.create_future()
            recipient.take_future(future)
        return None if future is None or future.done() else future

    cdef object hand_over(self):
        cdef Recipient recipient = self.due
        reply = self.due_reply
        self.due = self.due_reply = None
        recipient.take_reply(reply)


seal(Recipient)
seal(AwaitedReader)
