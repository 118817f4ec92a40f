"""Parses server-sent events incrementally: any chunking of the same bytes gives the same events."""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.sealing cimport seal

cdef enum:
    DEFAULT_LIMIT = 16777216
    # A century has this many digits in milliseconds; longer times are ignored.
    MAX_RETRY_DIGITS = 13


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
        return f"<SseEvent {self.event!r:.80} id={self.id!r:.80} {len(self.data)} bytes>"


seal(SseEvent)


cdef inline Py_ssize_t find(const char* text, int byte, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return the position of the next such byte, or ``end``."""
    cdef const char* found = <const char*> memchr(text + at, byte, end - at)
    return end if found is NULL else found - text


cdef inline bint is_name(const char* text, Py_ssize_t size, const char* name, Py_ssize_t name_size) noexcept nogil:
    return size == name_size and memcmp(text, name, name_size) == 0


cdef int extend(bytearray buffer, const char* text, Py_ssize_t size) except -1:
    cdef Py_ssize_t before = PyByteArray_GET_SIZE(buffer)
    PyByteArray_Resize(buffer, before + size)
    memcpy(PyByteArray_AS_STRING(buffer) + before, text, size)
    return 0


@cython.final
cdef class SseParser:
    cdef Py_ssize_t max_line
    cdef Py_ssize_t max_event
    # One growing buffer, not a list of pieces: a stream in tiny chunks costs the memory of its bytes, not of its
    # chunks.
    cdef bytearray partial
    cdef bint after_cr
    cdef bint started
    # The data of a single line, as it will be returned; several lines are joined in ``more``.
    cdef bytes data
    cdef bytearray more
    cdef str event
    cdef str pending_id
    cdef tuple exceeded
    cdef readonly str last_event_id
    cdef readonly object retry_ms
    cdef readonly int64_t comments

    def __cinit__(self, *, Py_ssize_t max_line=DEFAULT_LIMIT, Py_ssize_t max_event=DEFAULT_LIMIT):
        if max_line < 1 or max_event < 1:
            raise ValueError("max_line and max_event must be at least 1")
        self.max_line = max_line
        self.max_event = max_event
        self.partial = bytearray()
        self.pending_id = ""
        self.last_event_id = ""
        self.comments = 0
        self.event = ""

    def feed(self, chunk not None):
        cdef bytes block = chunk if type(chunk) is bytes else bytes(memoryview(chunk))
        cdef list events = []
        if self.exceeded is None:
            self.take_block(PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block), events)
        # Events that were complete before the limit was exceeded are returned first; the next call raises the error.
        if self.exceeded is not None and not events:
            raise SseLimitError(*self.exceeded)
        return events

    def close(self):
        self.partial = bytearray()
        self.after_cr = False
        self.pending_id = self.last_event_id
        self.forget_event()

    cdef int forget_event(self) except -1:
        self.data = None
        self.more = None
        self.event = ""
        return 0

    cdef int exceed(self, str limit, Py_ssize_t size) except -1:
        self.close()
        self.exceeded = (limit, size)
        return 0

    cdef int take_block(self, const char* text, Py_ssize_t end, list events) except -1:
        cdef Py_ssize_t at = 0
        # Kept between lines: if lines end with CR, the chunk must not be searched to its end for each of them.
        cdef Py_ssize_t next_lf = -1
        cdef Py_ssize_t line_end, size
        if self.after_cr and end > 0:
            # The LF of a CRLF that was cut in two.
            self.after_cr = False
            at = text[0] == 0x0A
        while at < end:
            if next_lf < at:
                next_lf = find(text, 0x0A, at, end)
            line_end = find(text, 0x0D, at, next_lf)
            size = PyByteArray_GET_SIZE(self.partial) + line_end - at
            if size > self.max_line:
                return self.exceed("max_line", size)
            if line_end == end:
                return extend(self.partial, text + at, end - at)
            if PyByteArray_GET_SIZE(self.partial) > 0:
                extend(self.partial, text + at, line_end - at)
                self.take_line(PyByteArray_AS_STRING(self.partial), size, events)
                PyByteArray_Resize(self.partial, 0)
            else:
                self.take_line(text + at, size, events)
            if self.exceeded is not None:
                return 0
            at = line_end + 1
            if text[line_end] == 0x0D:
                if at == end:
                    self.after_cr = True
                elif text[at] == 0x0A:
                    at += 1
        return 0

    cdef int take_line(self, const char* line, Py_ssize_t size, list events) except -1:
        cdef Py_ssize_t colon, value
        if not self.started:
            self.started = True
            if size >= 3 and memcmp(line, b"\xef\xbb\xbf", 3) == 0:
                line += 3
                size -= 3
        if size == 0:
            return self.dispatch(events)
        colon = find(line, 0x3A, 0, size)
        if colon == 0:
            self.comments += 1
            return 0
        value = colon + 1 if colon < size else size
        if value < size and line[value] == 0x20:
            value += 1
        return self.take_field(line, colon, line + value, size - value)

    cdef int take_field(self, const char* name, Py_ssize_t name_size, const char* value, Py_ssize_t size) except -1:
        if is_name(name, name_size, b"data", 4):
            return self.take_data(value, size)
        if is_name(name, name_size, b"event", 5):
            self.event = PyUnicode_DecodeUTF8(value, size, b"replace")
        elif is_name(name, name_size, b"id", 2):
            if memchr(value, 0, size) is NULL:
                self.pending_id = PyUnicode_DecodeUTF8(value, size, b"replace")
        elif is_name(name, name_size, b"retry", 5):
            self.take_retry(value, size)
        return 0

    cdef int take_data(self, const char* value, Py_ssize_t size) except -1:
        cdef Py_ssize_t before
        if self.data is None:
            if size > self.max_event:
                return self.exceed("max_event", size)
            self.data = PyBytes_FromStringAndSize(value, size)
            return 0
        before = PyBytes_GET_SIZE(self.data) if self.more is None else PyByteArray_GET_SIZE(self.more)
        if before + 1 + size > self.max_event:
            return self.exceed("max_event", before + 1 + size)
        if self.more is None:
            self.more = bytearray(self.data)
        extend(self.more, b"\n", 1)
        return extend(self.more, value, size)

    cdef int take_retry(self, const char* value, Py_ssize_t size) except -1:
        cdef int64_t milliseconds = 0
        cdef Py_ssize_t at
        if not 0 < size <= MAX_RETRY_DIGITS:
            return 0
        for at in range(size):
            if not 0x30 <= value[at] <= 0x39:
                return 0
            milliseconds = milliseconds * 10 + (value[at] - 0x30)
        self.retry_ms = milliseconds
        return 0

    cdef int dispatch(self, list events) except -1:
        cdef SseEvent event
        self.last_event_id = self.pending_id
        if self.data is not None:
            event = SseEvent.__new__(SseEvent)
            event.event = self.event or "message"
            event.data = self.data if self.more is None else bytes(self.more)
            event.id = self.last_event_id
            events.append(event)
        return self.forget_event()
