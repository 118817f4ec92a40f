"""Chunked bodies of HTTP/1.1 requests, which llhttp takes apart."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memchr

from mcp_manager._core.http_message cimport grow_from
from mcp_manager._core.sealing cimport seal

from httptools import HttpRequestParser

cdef enum:
    # Bytes of chunk sizes, extensions and trailers in a row.
    MAX_SILENT = 16384
    # Bytes fed at once.
    MAX_COPIED = 4096


cdef ChunkedBody new_chunked_body(int64_t limit):
    cdef ChunkedBody body = ChunkedBody.__new__(ChunkedBody)
    body.parser = HttpRequestParser(body)
    body.feed = body.parser.feed_data
    body.limit = limit
    return body


@cython.final
cdef class ChunkedBody:
    """Collects a chunked body; it is fed parts that end where the message may end."""

    def __init__(self):
        raise TypeError("a ChunkedBody comes from a ServedConnection")

    def on_body(self, bytes chunk not None):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(chunk)
        self.size += size
        self.silent = 0
        self.pieces += 1
        if self.size > self.limit:
            self.over = True
            self.first = None
            self.growing = None
            return
        if self.growing is not None:
            self.growing.add(chunk)
        elif self.first is None:
            self.first = chunk
        else:
            self.growing = grow_from(self.first, chunk)
            self.first = None

    def on_message_begin(self):
        if self.completed:
            raise ValueError("the message ends elsewhere")

    def on_message_complete(self):
        self.completed = True

    cdef int add(self, const char* data, Py_ssize_t size) except -1:
        """Take a part that ends where the message may end; return 0, or the status of a refusal."""
        self.silent += size
        self.pieces += 1
        try:
            self.feed(PyBytes_FromStringAndSize(data, size))
        except Exception:
            return 413 if self.over else 400
        if self.over or self.size > self.limit:
            return 413
        return 400 if self.silent > MAX_SILENT and not self.completed else 0

    cdef Py_ssize_t cut(self, const char* data, Py_ssize_t size) noexcept:
        """Return the size of the part up to the next empty line: a chunked message ends with one."""
        cdef Py_ssize_t at = 0
        cdef const char* found
        cdef unsigned int last
        if size > MAX_COPIED:
            size = MAX_COPIED
        while True:
            found = <const char*> memchr(data + at, 0x0A, size - at)
            if found is NULL:
                self.last = last_bytes(self.last, data, size)
                return size
            at = found - data + 1
            last = last_bytes(self.last, data, at)
            if last == 0x0D0A0D0A:
                self.last = last
                return at
            if at == size:
                self.last = last
                return size

    cdef bytes take(self):
        if self.growing is not None:
            return self.growing.take()
        return b"" if self.first is None else self.first


cdef inline unsigned int last_bytes(unsigned int before, const char* data, Py_ssize_t size) noexcept:
    """Return the last four bytes of a text that continues another."""
    cdef Py_ssize_t at
    for at in range(size - 4 if size > 4 else 0, size):
        before = (before << 8) | <unsigned char> data[at]
    return before


seal(ChunkedBody)
