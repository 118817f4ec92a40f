"""Writes HTTP responses."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from email.utils import formatdate
from http import HTTPStatus

cdef dict STATUS_LINES = {
    int(status): b"HTTP/1.1 %d %b\r\n" % (int(status), status.phrase.encode("ascii")) for status in HTTPStatus
}
cdef bytes EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
)
cdef tuple ENDINGS = (b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n")
cdef dict REFUSALS = {
    400: (-32600, b"the HTTP request is malformed"),
    408: (-32600, b"the HTTP request took too long"),
    413: (-32600, b"the body is longer than this server accepts"),
    417: (-32600, b"no expectation but 100-continue can be met"),
    431: (-32600, b"the header fields are longer than this server accepts"),
    500: (-32603, b"the request failed in the gateway"),
    501: (-32600, b"no transfer coding but chunked is known"),
    505: (-32600, b"the version of HTTP is neither 1.0 nor 1.1"),
}


cdef bytes date = b""
cdef int64_t date_second = -1


cdef bytes date_line(int64_t second):
    global date, date_second
    if second != date_second:
        date = b"Date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        date_second = second
    return date


cdef bytes response(int status, Py_ssize_t size, bytes fields, bytes date, Ending ending, bytes first):
    cdef bytes line = <bytes> STATUS_LINES[status]
    cdef bytes state = <bytes> ENDINGS[<int> ending]
    cdef Py_ssize_t total
    cdef char[128] length
    cdef int digits = 0
    cdef bytes whole
    cdef char* at
    if size > 0:
        digits = snprintf(length, sizeof(length), "Content-Type: application/json\r\nContent-Length: %zd\r\n", size)
    elif status != 204 and status != 304:
        # RFC 9110, section 8.6
        digits = snprintf(length, sizeof(length), "Content-Length: 0\r\n")
    total = PyBytes_GET_SIZE(line) + digits + PyBytes_GET_SIZE(date) + PyBytes_GET_SIZE(fields)
    total += PyBytes_GET_SIZE(state) + 2 + PyBytes_GET_SIZE(first)
    whole = PyBytes_FromStringAndSize(NULL, total)
    at = put(PyBytes_AS_STRING(whole), line)
    memcpy(at, length, digits)
    at = put(at + digits, date)
    at = put(at, fields)
    at = put(at, state)
    memcpy(at, <const char*> b"\r\n", 2)
    put(at + 2, first)
    return whole


cdef inline char* put(char* at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)


cdef bytes events_head(bytes fields, bytes date, Ending ending, bint chunked):
    return b"%b%b%b%b%b\r\n" % (
        EVENTS, b"Transfer-Encoding: chunked\r\n" if chunked else b"", date, fields, ENDINGS[<int> ending]
    )


cdef bytes chunk_of(bytes data):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef char[24] length
    cdef int digits = snprintf(length, sizeof(length), "%zx\r\n", size)
    cdef bytes chunk = PyBytes_FromStringAndSize(NULL, digits + size + 2)
    cdef char* at = PyBytes_AS_STRING(chunk)
    memcpy(at, length, digits)
    memcpy(at + digits, PyBytes_AS_STRING(data), size)
    memcpy(at + digits + size, <const char*> b"\r\n", 2)
    return chunk


cdef bytes refusal(int status):
    return b'{"jsonrpc":"2.0","error":{"code":%d,"message":"%b","data":{"source":"gateway"}}}' % (
        REFUSALS[status]
    )
