"""The head of an HTTP/1.1 request: llhttp checks it, this module notes where the fields are that matter.

llhttp, through httptools, calls back with two new objects for each field, which costs more than all the rest of a
request. So it gets no callbacks for them: it refuses what is not well-formed, and the lines of what is are found here.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from mcp_manager._core.sealing cimport seal

from httptools import HttpRequestParser

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* first, const char* second, size_t size)

cdef enum:
    MAX_FIELDS = 100
    MAX_LENGTH_DIGITS = 18
    MAX_COPIED = 4096
    # Length of " HTTP/1.1"
    VERSION_SIZE = 9
    # Results of note() and read() besides an HTTP status.
    FINE = 0
    BAD_REQUEST = 400
    EXPECTATION_FAILED = 417
    TOO_MANY_FIELDS = 431
    NOT_IMPLEMENTED = 501
    WRONG_VERSION = 505

cdef enum:
    HOST = 0

cdef dict NUMBERS = {
    b"host": 0,
    b"origin": 1,
    b"accept": 2,
    b"content-type": 3,
    b"mcp-session-id": 4,
    b"mcp-protocol-version": 5,
    b"mcp-method": 6,
    b"mcp-name": 7,
    b"authorization": 8,
    b"last-event-id": 9,
    b"traceparent": 10,
}


cdef dict METHODS = {GET: "GET", POST: "POST", DELETE: "DELETE"}


@cython.final
cdef class MessageCheck:
    """Let llhttp check that bytes are exactly one message; the parser is used again after each that is."""

    def __cinit__(self):
        self.renew()

    cdef int renew(self) except -1:
        self.parser = HttpRequestParser(self)
        self.feed = self.parser.feed_data
        return 0

    cdef bint is_one_message(self, const char* data, Py_ssize_t size, bint keeps_alive) except -1:
        self.begun = self.completed = 0
        try:
            # A copy of a few bytes costs less than a view of them.
            self.feed(
                PyBytes_FromStringAndSize(data, size) if size <= MAX_COPIED
                else PyMemoryView_FromMemory(<char*> data, size, PyBUF_READ)
            )
        except Exception:
            self.renew()
            return False
        one = self.begun == 1 and self.completed == 1
        if not one or not keeps_alive:
            # It is in the middle of a message, or expects no other: the next bytes are those of another connection.
            self.renew()
        return one

    def on_message_begin(self):
        self.begun += 1

    def on_message_complete(self):
        self.completed += 1


cdef class RequestHead:
    """What the head of a request says."""

    def __cinit__(self):
        self.head = b""

    def header(self, bytes name not None):
        number = NUMBERS.get(name)
        if number is None:
            return self.joined(name)
        if self.several & (1u << <int> number):
            return self.joined(name)
        if self.starts[<int> number] == 0:
            return None
        return PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self.head) + self.starts[<int> number], self.sizes[<int> number]
        )

    @property
    def method(self):
        return <str> METHODS[self.method_size]

    @property
    def target(self):
        """The request target, with its query."""
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.head) + self.method_size, self.target_size)

    def fields(self):
        """Return all header fields, with their names as they came."""
        found = []
        for line in self.head.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b":")
            if colon:
                found.append((name, value.strip(b" \t")))
        return found

    cdef bytes joined(self, bytes name):
        """Return the values of every field of a name, joined; ``None`` without any."""
        cdef list values = None
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
        cdef bytes line
        for line in self.head.split(b"\r\n")[1:]:
            if PyBytes_GET_SIZE(line) > size and PyBytes_AS_STRING(line)[size] == 0x3A:
                if strncasecmp(PyBytes_AS_STRING(line), PyBytes_AS_STRING(name), size) == 0:
                    if values is None:
                        values = []
                    values.append(line[size + 1:].strip(b" \t"))
        return None if values is None else b", ".join(values)

    cdef object forget(self):
        """Let go of what the request said, apart from its method."""
        self.head = b""
        memset(self.starts, 0, sizeof(self.starts))
        self.several = 0
        self.target_size = 0

    cdef Py_ssize_t repeated(self, const char* data, Py_ssize_t size, int64_t* length) noexcept:
        """Return the size of the head of data that begins with this head, but for the digits of the length; else 0.

        What was found of this head, and of the framing of the body, is then true of those data as well.
        """
        cdef const char* text = PyBytes_AS_STRING(self.head)
        cdef Py_ssize_t end = PyBytes_GET_SIZE(self.head)
        cdef int at = self.length_start
        cdef int rest = at + self.length_size
        if size < end or memcmp(data, text, at) != 0 or memcmp(data + rest, text + rest, end - rest) != 0:
            return 0
        length[0] = 0
        while at < rest:
            if not 0x30 <= data[at] <= 0x39:
                return 0
            length[0] = length[0] * 10 + (data[at] - 0x30)
            at += 1
        return end

    cdef int repeat(self, RequestHead other, const char* data, int64_t length) except -1:
        """Become what another head is, from data that it is repeated in."""
        self.head = other.head
        if length != other.length:
            self.head = PyBytes_FromStringAndSize(data, PyBytes_GET_SIZE(other.head))
        memcpy(self.starts, other.starts, sizeof(self.starts))
        memcpy(self.sizes, other.sizes, sizeof(self.sizes))
        self.several = other.several
        self.method_size = other.method_size
        self.target_size = other.target_size
        self.length = length
        self.framing = other.framing
        self.keeps_alive = other.keeps_alive
        self.minor = other.minor
        self.length_start = other.length_start
        self.length_size = other.length_size
        return 0

    cdef bint is_of_session(self) except -1:
        """Whether it is a GET for an event stream or a DELETE, without a body."""
        if self.framing != NO_BODY:
            return False
        if self.method_size != GET:
            return self.method_size == DELETE
        accepted = self.header(b"accept")
        return accepted is not None and b"text/event-stream" in accepted.lower()

    cdef int read(self) except -1:
        """Find the target, the framing of the body and the noted fields; return 0, or the status of a refusal.

        What is not well-formed may pass here: llhttp refuses it.
        """
        cdef const char* text = PyBytes_AS_STRING(self.head)
        cdef int size = <int> PyBytes_GET_SIZE(self.head)
        cdef const char* found = <const char*> memchr(text, 0x0A, size)
        cdef int at, end, colon, value, next_line, status
        cdef int fields = 0
        self.framing = NO_BODY
        at = <int> (found - text) + 1
        self.target_size = at - 2 - VERSION_SIZE - self.method_size
        if self.target_size < 1 or memcmp(text + at - 2 - VERSION_SIZE, <const char*> b" HTTP/1.", 8) != 0:
            return WRONG_VERSION if self.target_size > 0 and memcmp(
                text + at - 2 - VERSION_SIZE, <const char*> b" HTTP/", 6
            ) == 0 else BAD_REQUEST
        self.minor = text[at - 3] - 0x30
        if self.minor != 0 and self.minor != 1:
            return WRONG_VERSION
        while at < size - 2:
            found = <const char*> memchr(text + at, 0x0A, size - at)
            end = <int> (found - text) - 1
            found = <const char*> memchr(text + at, 0x3A, end - at)
            fields += 1
            if found is NULL or fields > MAX_FIELDS:
                return BAD_REQUEST if found is NULL else TOO_MANY_FIELDS
            colon = <int> (found - text)
            value = colon + 1
            next_line = end + 2
            while value < end and (text[value] == 0x20 or text[value] == 0x09):
                value += 1
            while end > value and (text[end - 1] == 0x20 or text[end - 1] == 0x09):
                end -= 1
            status = self.note(text, at, colon - at, value, end - value)
            if status != FINE:
                return status
            at = next_line
        if self.minor == 1 and self.starts[HOST] == 0 or self.several & (1u << HOST):
            # RFC 9112, section 3.2
            return BAD_REQUEST
        if self.framing == CHUNKED and self.minor == 0:
            # RFC 9112, section 6.1: its framing is faulty.
            return BAD_REQUEST
        self.keeps_alive = not self.asks_to_close and (self.minor == 1 or self.asks_to_keep)
        self.upgrades = self.upgrades and self.asks_to_upgrade
        return FINE

    cdef int note(self, const char* text, int name, int name_size, int value, int value_size) except -1:
        """Note a field; return 0, or the status of a refusal."""
        cdef const char* begin = text + name
        cdef int number = -1
        cdef int at
        if name_size == 4:
            if strncasecmp(begin, b"host", 4) == 0:
                number = 0
        elif name_size == 6:
            if strncasecmp(begin, b"origin", 6) == 0:
                number = 1
            elif strncasecmp(begin, b"accept", 6) == 0:
                number = 2
            elif strncasecmp(begin, b"expect", 6) == 0:
                if value_size != 12 or strncasecmp(text + value, b"100-continue", 12) != 0:
                    return EXPECTATION_FAILED
                self.expects = True
        elif name_size == 7:
            if strncasecmp(begin, b"upgrade", 7) == 0:
                self.upgrades = True
        elif name_size == 8:
            if strncasecmp(begin, b"mcp-name", 8) == 0:
                number = 7
        elif name_size == 10:
            if strncasecmp(begin, b"connection", 10) == 0:
                self.read_connection(text + value, value_size)
            elif strncasecmp(begin, b"mcp-method", 10) == 0:
                number = 6
        elif name_size == 11:
            if strncasecmp(begin, b"traceparent", 11) == 0:
                number = 10
        elif name_size == 12:
            if strncasecmp(begin, b"content-type", 12) == 0:
                number = 3
        elif name_size == 13:
            if strncasecmp(begin, b"authorization", 13) == 0:
                number = 8
            elif strncasecmp(begin, b"last-event-id", 13) == 0:
                number = 9
        elif name_size == 14:
            if strncasecmp(begin, b"mcp-session-id", 14) == 0:
                number = 4
            elif strncasecmp(begin, b"content-length", 14) == 0:
                if self.framing != NO_BODY or value_size == 0:
                    return BAD_REQUEST
                self.framing = SIZED
                self.length_start = value
                self.length_size = value_size
                for at in range(value, value + value_size):
                    if not 0x30 <= text[at] <= 0x39:
                        return BAD_REQUEST
                    if at - value < MAX_LENGTH_DIGITS:
                        self.length = self.length * 10 + (text[at] - 0x30)
                if value_size > MAX_LENGTH_DIGITS:
                    # More than any limit
                    self.length = <int64_t> 1 << 62
        elif name_size == 17:
            if strncasecmp(begin, b"transfer-encoding", 17) == 0:
                if self.framing != NO_BODY:
                    return BAD_REQUEST
                if value_size != 7 or strncasecmp(text + value, b"chunked", 7) != 0:
                    return NOT_IMPLEMENTED
                self.framing = CHUNKED
        elif name_size == 20:
            if strncasecmp(begin, b"mcp-protocol-version", 20) == 0:
                number = 5
        if number >= 0:
            if self.starts[number] != 0:
                self.several |= 1u << number
            else:
                self.starts[number] = value
                self.sizes[number] = value_size
        return FINE

    cdef int read_connection(self, const char* text, int size) except -1:
        cdef bytes options, option
        if size == 10 and strncasecmp(text, b"keep-alive", 10) == 0:
            self.asks_to_keep = True
            return 0
        options = PyBytes_FromStringAndSize(text, size).lower()
        for option in options.split(b","):
            option = option.strip(b" \t")
            if option == b"close":
                self.asks_to_close = True
            elif option == b"keep-alive":
                self.asks_to_keep = True
            elif option == b"upgrade":
                self.asks_to_upgrade = True
        return 0


cdef RequestHead head_to_repeat(RequestHead head):
    cdef RequestHead copy
    if head.method_size != POST or head.framing != SIZED or not head.keeps_alive or head.expects:
        return None
    copy = RequestHead.__new__(RequestHead)
    copy.repeat(head, PyBytes_AS_STRING(head.head), head.length)
    return copy


cdef int method_size_of(const char* data, Py_ssize_t size) noexcept:
    """Return the size of the method and the space after it, 0 if it is none of ours; the end may still be missing."""
    if memcmp(data, <const char*> b"POST ", POST if size > POST else size) == 0:
        return POST
    if memcmp(data, <const char*> b"GET ", GET if size > GET else size) == 0:
        return GET
    if memcmp(data, <const char*> b"DELETE ", DELETE if size > DELETE else size) == 0:
        return DELETE
    return 0


cdef Py_ssize_t end_of_head(const char* data, Py_ssize_t size, Py_ssize_t at) noexcept:
    """Return the size of the head with its empty line, 0 if that is not there; ``at`` is where it may begin."""
    cdef const char* found
    while at + 4 <= size:
        found = <const char*> memchr(data + at, 0x0D, size - at - 3)
        if found is NULL:
            return 0
        if memcmp(found, <const char*> b"\r\n\r\n", 4) == 0:
            return found - data + 4
        at = found - data + 1
    return 0


seal(RequestHead)
