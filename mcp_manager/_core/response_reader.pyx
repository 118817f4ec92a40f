"""Reads the head of a response field by field, keeps the fields that are used, and collects a body.

Most responses of a server begin with the same head. What llhttp has found of it, and of the framing of the body, is
true of every response with these bytes, whatever the length of the body is: such a response needs no parser.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.deadlines cimport DeadlineWheel
from mcp_manager._core.http_message cimport (
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, KEPT, OTHER, SET_COOKIE, TRANSFER_ENCODING, Exchange, content_of,
    grow_from, is_encoded, kept_name, length_of, make_reply, new_body,
)
from mcp_manager._core.request_head cimport end_of_head
from mcp_manager._core.sealing cimport seal

from mcp_manager._core.http_message import MALFORMED as _MALFORMED, OVERSIZE as _OVERSIZE, WireError

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* first, const char* second, size_t size)

cdef enum:
    # A longer head is read each time.
    MAX_KNOWN = 4096
    MAX_DIGITS = 18
    MAX_QUOTED = 8


@cython.final
cdef class KnownHead:
    def __init__(self):
        raise TypeError("a KnownHead comes from a Wire")

    cdef Py_ssize_t size_of(self, const char* data, Py_ssize_t size) noexcept:
        """Return the size of the head of data that is a whole response with this head; 0 of any other."""
        cdef const char* head = PyBytes_AS_STRING(self.head)
        cdef Py_ssize_t at = self.start
        cdef Py_ssize_t rest = PyBytes_GET_SIZE(self.head) - self.end
        cdef int64_t length = 0
        if size < at + rest or memcmp(data, head, at) != 0:
            return 0
        while at < size and 0x30 <= data[at] <= 0x39 and at - self.start < MAX_DIGITS:
            length = length * 10 + (data[at] - 0x30)
            at += 1
        if at == self.start or length == 0 or size - at - rest != length:
            return 0
        return at + rest if memcmp(data + at, head + self.end, rest) == 0 else 0


cdef KnownHead known_head(const char* data, Py_ssize_t size, int status, ResponseReader read):
    cdef Py_ssize_t end = end_of_head(data, size if size < MAX_KNOWN else MAX_KNOWN, 0)
    cdef Py_ssize_t line = 0, value = 0, stop = 0
    cdef KnownHead known
    if end == 0 or status != 200 or read.length < 1 or end + read.length != size:
        # That is so of a final response after an interim one as well.
        return None
    while line < end - 2:
        if end - line > 15 and strncasecmp(data + line, b"content-length:", 15) == 0:
            value = line + 15
        elif end - line > 11 and strncasecmp(data + line, b"set-cookie:", 11) == 0:
            return None
        line = <const char*> memchr(data + line, 0x0A, end - line) - data + 1
    while value > 0 and (data[value] == 0x20 or data[value] == 0x09):
        value += 1
    stop = value
    while 0x30 <= data[stop] <= 0x39:
        stop += 1
    if stop == value:
        return None
    known = KnownHead.__new__(KnownHead)
    known.head = PyBytes_FromStringAndSize(data, end)
    known.start = value
    known.end = stop
    known.status = status
    known.headers = read.headers
    known.media_type = read.media_type
    known.content = read.content
    known.encoded = read.encoded
    return known


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

    cdef int recall(self, KnownHead known) except -1:
        """Keep the fields of a head that was read before."""
        self.headers = known.headers
        self.media_type = known.media_type
        self.content = known.content
        self.encoded = known.encoded
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


seal(KnownHead)
seal(ResponseReader)
