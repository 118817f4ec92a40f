"""Server-sent events, parsed as they come: any chunking of the same bytes gives the same events."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

cdef enum:
    DEFAULT_LIMIT = 16777216


class SseLimitError(ValueError):
    def __init__(self, limit, size):
        super().__init__(f"an event stream exceeds {limit}: {size} bytes")
        self.limit = limit
        self.size = size


@cython.final
cdef class SseEvent:
    cdef readonly str event
    cdef readonly bytes data
    cdef readonly str id

    def __init__(self):
        raise TypeError("an SseEvent comes from SseParser.feed()")

    def __repr__(self):
        return f"<SseEvent {self.event!r} id={self.id!r} {len(self.data)} bytes>"


cdef inline Py_ssize_t find_line_end(const char* text, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return where the next CR or LF is, or ``end``."""
    cdef const char* found = <const char*> memchr(text + at, 0x0A, end - at)
    cdef Py_ssize_t line_end = end if found is NULL else found - text
    found = <const char*> memchr(text + at, 0x0D, line_end - at)
    return line_end if found is NULL else found - text


@cython.final
cdef class SseParser:
    cdef Py_ssize_t max_line
    cdef Py_ssize_t max_event
    cdef list partial
    cdef Py_ssize_t partial_size
    cdef bint after_cr
    cdef bint started
    cdef list data
    cdef Py_ssize_t data_size
    cdef str event
    cdef str pending_id
    cdef readonly str last_event_id
    cdef readonly object retry_ms
    cdef readonly object comments

    def __cinit__(self, *, Py_ssize_t max_line=DEFAULT_LIMIT, Py_ssize_t max_event=DEFAULT_LIMIT):
        if max_line < 1 or max_event < 1:
            raise ValueError("max_line and max_event must be at least 1")
        self.max_line = max_line
        self.max_event = max_event
        self.partial = []
        self.pending_id = ""
        self.last_event_id = ""
        self.comments = 0
        self.data = None
        self.event = ""

    def feed(self, chunk not None):
        cdef bytes block = chunk if type(chunk) is bytes else bytes(chunk)
        cdef const char* text = PyBytes_AS_STRING(block)
        cdef Py_ssize_t end = PyBytes_GET_SIZE(block)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t line_end
        cdef list events = []
        cdef bytes line
        if self.after_cr and end > 0:
            # The LF of a CRLF that was cut in two.
            self.after_cr = False
            if text[0] == 0x0A:
                at = 1
        while at < end:
            line_end = find_line_end(text, at, end)
            if self.partial_size + line_end - at > self.max_line:
                raise SseLimitError("max_line", self.partial_size + line_end - at)
            if line_end == end:
                self.partial.append(block[at:end])
                self.partial_size += end - at
                break
            line = block[at:line_end]
            if self.partial_size:
                self.partial.append(line)
                line = b"".join(self.partial)
                self.partial = []
                self.partial_size = 0
            at = line_end + 1
            if text[line_end] == 0x0D:
                if at == end:
                    self.after_cr = True
                elif text[at] == 0x0A:
                    at += 1
            self.take_line(line, events)
        return events

    def close(self):
        self.partial = []
        self.partial_size = 0
        self.after_cr = False
        self.forget_event()

    cdef int forget_event(self) except -1:
        self.data = None
        self.data_size = 0
        self.event = ""
        return 0

    cdef int take_line(self, bytes line, list events) except -1:
        cdef Py_ssize_t size
        cdef Py_ssize_t colon
        cdef bytes name, value
        if not self.started:
            self.started = True
            if line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
        size = PyBytes_GET_SIZE(line)
        if size == 0:
            self.dispatch(events)
            return 0
        colon = line.find(b":")
        if colon == 0:
            self.comments += 1
            return 0
        if colon < 0:
            name, value = line, b""
        elif colon + 1 < size and line[colon + 1] == 0x20:
            name, value = line[:colon], line[colon + 2:]
        else:
            name, value = line[:colon], line[colon + 1:]
        self.take_field(name, value)
        return 0

    cdef int take_field(self, bytes name, bytes value) except -1:
        if name == b"data":
            self.data_size += PyBytes_GET_SIZE(value) + 1
            if self.data_size - 1 > self.max_event:
                raise SseLimitError("max_event", self.data_size - 1)
            if self.data is None:
                self.data = [value]
            else:
                self.data.append(value)
        elif name == b"event":
            self.event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self.pending_id = value.decode("utf-8", "replace")
        elif name == b"retry":
            # More digits than a century of milliseconds has are not a wish to be met.
            if value.isdigit() and PyBytes_GET_SIZE(value) <= 13:
                self.retry_ms = int(value)
        return 0

    cdef int dispatch(self, list events) except -1:
        cdef SseEvent event
        self.last_event_id = self.pending_id
        if self.data is not None:
            event = SseEvent.__new__(SseEvent)
            event.event = self.event or "message"
            event.data = <bytes> self.data[0] if len(self.data) == 1 else b"\n".join(self.data)
            event.id = self.last_event_id
            events.append(event)
        self.forget_event()
        return 0
