"""Reads the head of a response field by field, and keeps the fields that are used."""

from libc.stdint cimport int64_t

from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.http_message cimport (
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, KEPT, OTHER, SET_COOKIE, TRANSFER_ENCODING, Exchange, content_of,
    is_encoded, kept_name, length_of, make_reply,
)
from mcp_manager._core.sealing cimport seal


cdef class ResponseReader(PacedReader):
    cdef bint take_field(self, bytes name, bytes value) except -1:
        """Take a field; return whether a body of the length that it gives is possible."""
        cdef bytes known = kept_name(name)
        if known is None:
            return True
        if known is <object> KEPT[SET_COOKIE]:
            if self.cookies is None:
                self.cookies = []
            self.cookies.append(value)
            return True
        if known is <object> KEPT[CONTENT_TYPE]:
            self.media_type = value
            self.content = content_of(value)
            return True
        if known is <object> KEPT[CONTENT_LENGTH]:
            self.length = length_of(value)
            return self.length >= 0
        if known is <object> KEPT[TRANSFER_ENCODING]:
            self.chunked = True
            return True
        if known is <object> KEPT[CONTENT_ENCODING]:
            self.encoded = is_encoded(value)
        if self.headers is None:
            self.headers = []
        self.headers.append((known, value))
        return True

    cdef int forget_fields(self) except -1:
        self.headers = None
        self.cookies = None
        self.media_type = None
        self.content = OTHER
        self.length = -1
        self.chunked = self.encoded = False
        return 0

    cdef int leave_head(self, Exchange exchange, int status) except -1:
        """Store what is known of the head in the exchange of a message whose reply will not arrive."""
        if self.headers is not None and exchange is not None and exchange.head is None and exchange.frame:
            exchange.head = make_reply(status, self.headers, self.media_type, b"", self.content)
        return 0

    cdef bint is_put_off(self, Exchange exchange, DeadlineWheel wheel) except -1:
        """Wait on if the listener of the call puts its deadline off; return whether it does."""
        cdef int64_t due_ns
        if exchange is None or exchange.listener is None:
            return False
        due_ns = exchange.listener.put_off(exchange.deadline_ns)
        if due_ns <= <int64_t> wheel.clock():
            return False
        wheel.put(self, due_ns)
        return True


seal(ResponseReader)
