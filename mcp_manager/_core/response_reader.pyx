"""Reads the head of a response field by field, keeps the fields that are used, and collects a body."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.http_message cimport (
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, KEPT, OTHER, SET_COOKIE, TRANSFER_ENCODING, Exchange, content_of,
    grow_from, is_encoded, kept_name, length_of, make_reply, new_body,
)
from mcp_manager._core.sealing cimport seal

from mcp_manager._core.http_message import MALFORMED as _MALFORMED, OVERSIZE as _OVERSIZE, WireError

cdef enum:
    MAX_QUOTED = 8


cdef object objection(error, const char* data, Py_ssize_t size):
    if isinstance(error.__context__, MemoryError):
        return error.__context__
    if size == 0:
        return WireError(_MALFORMED, f"{error}")
    return WireError(_MALFORMED, f"{error} (it begins with {PyBytes_FromStringAndSize(data, min(size, MAX_QUOTED))!r})")


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

    cdef object take_body(self, bytes chunk):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(chunk)
        if self.length < 0:
            self.received += size
            if self.received > self.limit:
                return WireError(_OVERSIZE, "", self.received)
            if self.growing is not None:
                self.growing.add(chunk)
            elif self.body is None:
                self.body = chunk
            else:
                self.growing = grow_from(self.body, chunk)
                self.body = None
            return None
        if self.received == 0 and size == self.length:
            self.body = chunk
        elif size > self.length - self.received:
            return WireError(_MALFORMED, "its body is longer than it said")
        else:
            if self.body is None:
                self.body = new_body(self.length)
            memcpy(PyBytes_AS_STRING(self.body) + self.received, PyBytes_AS_STRING(chunk), size)
        self.received += size
        return None

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
