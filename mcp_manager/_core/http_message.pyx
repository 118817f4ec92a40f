"""What wires carry: requests with their deadlines, responses, and the reasons why there is no response."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from mcp_manager._core.json_text cimport skip_space
from mcp_manager._core.sealing cimport seal

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject*) noexcept
    void Py_SET_SIZE(object, Py_ssize_t) noexcept
    # On failure it has freed the block.
    int _PyBytes_Resize(PyObject** block, Py_ssize_t size) except -1
    void Py_CLEAR(PyObject*) noexcept

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* first, const char* second, size_t size)

LOST = 0
MALFORMED = 1
OVERSIZE = 2
EXPIRED = 3
UNANSWERED = 4
STOPPED = 5

STANDING = -1

cdef enum:
    MAX_LENGTH_DIGITS = 18
    MIN_RECYCLED = 131072
    MAX_RECYCLED = 8388608
    # Spare room of a growing body at the start.
    MIN_GROWING = 4096
    # Lengths of the fixed parts of a request.
    ID_HEAD_SIZE = 22
    METHOD_SIZE = 10
    PARAMS_SIZE = 10


KEPT = (
    b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"set-cookie",
    b"mcp-session-id", b"retry-after", b"location", b"www-authenticate", b"allow",
)


class WireError(Exception):
    def __init__(self, kind, detail="", size=0):
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.size = size
        self.last_event_id = ""
        self.retry_ms = None
        self.unread = False
        self.reused = False


@cython.final
@cython.freelist(16)
cdef class WireReply:
    def __init__(self, int status, list headers not None, bytes body not None):
        cdef bint encoded = False
        self.status = status
        self.headers = headers
        self.body = body
        self.content = OTHER
        for name, value in headers:
            if type(name) is not bytes or type(value) is not bytes:
                raise TypeError(f"headers must be pairs of bytes, not {name!r:.40} and {value!r:.40}")
            if name == b"content-type":
                self.media_type = value
                self.content = content_of(value)
            elif name == b"content-encoding":
                encoded = is_encoded(value)
        if encoded:
            self.content = OTHER

    @property
    def is_answer(self):
        return self.status == 200 and self.content == JSON

    @property
    def is_json(self):
        return self.content == JSON

    @property
    def is_event_stream(self):
        return self.content == EVENTS

    def header(self, str name not None):
        cdef bytes wanted = name.lower().encode("latin-1")
        if wanted == b"content-type":
            return None if self.media_type is None else self.media_type.decode("latin-1").strip()
        for known, value in self.headers or ():
            if known == wanted:
                return value.decode("latin-1").strip()
        return None

    def header_values(self, str name not None):
        cdef bytes wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1").strip() for known, value in self.headers or () if known == wanted]

    def __repr__(self):
        return f"<WireReply {self.status} {len(self.body)} bytes>"


@cython.final
@cython.freelist(64)
cdef class Request:
    def __cinit__(self, bytes method not None, bytes params, bytes meta=None, bytes fields=None):
        if meta is not None and params is not None and not params.startswith(b"{"):
            raise ValueError("only params that are an object have room for meta")
        self.method = method
        self.params = params
        self.meta = meta
        self.fields = fields

    cpdef Exchange exchange(self, int64_t request_id, int64_t deadline_ns):
        cdef const char* params = NULL if self.params is None else PyBytes_AS_STRING(self.params)
        cdef Py_ssize_t size = 0 if self.params is None else PyBytes_GET_SIZE(self.params)
        cdef Exchange exchange
        cdef bytes opening
        if self.meta is None:
            exchange = make_exchange(
                PyBytes_AS_STRING(self.method), PyBytes_GET_SIZE(self.method), NULL, 0, params, size,
                request_id, deadline_ns,
            )
        else:
            opening = b'{"_meta":{' + self.meta + b"}"
            if params is NULL:
                params = <const char*> b"{}"
                size = 2
            if not is_empty(params + 1, size - 1):
                opening += b","
            exchange = make_exchange(
                PyBytes_AS_STRING(self.method), PyBytes_GET_SIZE(self.method),
                PyBytes_AS_STRING(opening), PyBytes_GET_SIZE(opening), params + 1, size - 1, request_id, deadline_ns,
            )
        exchange.fields = self.fields
        return exchange


cdef inline bint is_empty(const char* members, Py_ssize_t size) noexcept:
    """Return whether an object has no members; the text is what follows its opening bracket."""
    cdef Py_ssize_t at = skip_space(<const uint8_t*> members, 0, size)
    return at < size and members[at] == 0x7D


cdef Exchange make_exchange(
    const char* method, Py_ssize_t method_size, const char* opening, Py_ssize_t opening_size,
    const char* params, Py_ssize_t params_size, int64_t request_id, int64_t deadline_ns,
):
    """Build a JSON-RPC request from parts that are JSON; ``params`` may be NULL, or continue an ``opening``."""
    cdef Exchange exchange = Exchange.__new__(Exchange)
    cdef char[32] digits
    cdef int id_size = write_number(digits, request_id)
    cdef Py_ssize_t size = ID_HEAD_SIZE + id_size + METHOD_SIZE + method_size + 1
    cdef char* at
    if params is not NULL:
        size += PARAMS_SIZE + opening_size + params_size
    exchange.frame = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(exchange.frame)
    memcpy(at, <const char*> b'{"jsonrpc":"2.0","id":', ID_HEAD_SIZE)
    memcpy(at + ID_HEAD_SIZE, digits, id_size)
    at += ID_HEAD_SIZE + id_size
    memcpy(at, <const char*> b',"method":', METHOD_SIZE)
    at += METHOD_SIZE
    memcpy(at, method, method_size)
    at += method_size
    if params is not NULL:
        memcpy(at, <const char*> b',"params":', PARAMS_SIZE)
        at += PARAMS_SIZE
        if opening_size:
            memcpy(at, opening, opening_size)
            at += opening_size
        memcpy(at, params, params_size)
        at += params_size
    at[0] = 0x7D
    exchange.request_id = request_id
    exchange.deadline_ns = deadline_ns
    return exchange


@cython.final
@cython.freelist(64)
cdef class Exchange:
    def __init__(self, bytes frame not None, int64_t request_id, int64_t deadline_ns):
        self.frame = frame
        self.request_id = request_id
        self.deadline_ns = deadline_ns

    def __repr__(self):
        return f"<Exchange {self.request_id} {len(self.frame)} bytes{' sent' if self.sent else ''}>"


cdef Content content_of(bytes value) noexcept:
    cdef const char* text = PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    if is_media_type(text, size, b"application/json", 16):
        return JSON
    if is_media_type(text, size, b"text/event-stream", 17):
        return EVENTS
    return OTHER


cdef inline bint is_media_type(const char* text, Py_ssize_t size, const char* wanted, Py_ssize_t wanted_size) noexcept:
    if size < wanted_size or strncasecmp(text, wanted, wanted_size) != 0:
        return False
    return size == wanted_size or text[wanted_size] in (0x3B, 0x20, 0x09)


cdef bytes kept_name(bytes name):
    """Return the lower-case name of a header that is kept, ``None`` for all others."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef const char* text = PyBytes_AS_STRING(name)
    cdef bytes known
    for known in KEPT:
        if PyBytes_GET_SIZE(known) == size and strncasecmp(text, PyBytes_AS_STRING(known), size) == 0:
            return known
    return None


cdef bint is_encoded(bytes value):
    return value.strip().lower() not in (b"", b"identity")


cdef int64_t length_of(bytes value) noexcept:
    """Read a Content-Length that llhttp has accepted; return -1 if it has more digits than any limit."""
    cdef int64_t total = 0
    cdef Py_ssize_t at
    cdef char digit
    if PyBytes_GET_SIZE(value) > MAX_LENGTH_DIGITS:
        return -1
    for at in range(PyBytes_GET_SIZE(value)):
        digit = PyBytes_AS_STRING(value)[at]
        if 0x30 <= digit <= 0x39:
            total = total * 10 + (digit - 0x30)
    return total


cdef int write_number(char* to, int64_t number) noexcept:
    """Write a number in decimal, at most 20 bytes, and return how many there are."""
    cdef char[24] reversed_digits
    # The lowest number has no positive counterpart in 64 bits.
    cdef uint64_t left = <uint64_t> number if number >= 0 else 0 - <uint64_t> number
    cdef int count = 0
    cdef int at
    while True:
        reversed_digits[count] = <char> (0x30 + left % 10)
        count += 1
        left //= 10
        if left == 0:
            break
    if number < 0:
        reversed_digits[count] = 0x2D
        count += 1
    for at in range(count):
        to[at] = reversed_digits[count - 1 - at]
    return count


cdef bytes render(bytes head, bytes fields, bytes body):
    """Join a head that ends with ``Content-Length: ``, the length, the fields of this request only, and the body."""
    cdef char[32] length
    cdef int digits = write_number(length, PyBytes_GET_SIZE(body))
    cdef Py_ssize_t head_size = PyBytes_GET_SIZE(head)
    cdef Py_ssize_t fields_size = 0 if fields is None else PyBytes_GET_SIZE(fields)
    cdef bytes request = PyBytes_FromStringAndSize(
        NULL, head_size + digits + 4 + fields_size + PyBytes_GET_SIZE(body)
    )
    cdef char* at = PyBytes_AS_STRING(request)
    memcpy(at, PyBytes_AS_STRING(head), head_size)
    at += head_size
    memcpy(length + digits, <const char*> b"\r\n", 2)
    memcpy(at, length, digits + 2)
    at += digits + 2
    if fields is not None:
        memcpy(at, PyBytes_AS_STRING(fields), fields_size)
        at += fields_size
    memcpy(at, <const char*> b"\r\n", 2)
    memcpy(at + 2, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    return request


cdef bytes spare = None
cdef bytes lent = None
cdef Py_ssize_t spare_capacity = 0


cdef bytes new_body(Py_ssize_t size):
    """Return room for a body, in the memory of the last recycled one if it has about that length."""
    global spare
    cdef bytes body
    take_back()
    body = spare
    if body is None or size > spare_capacity or size < spare_capacity // 2:
        return PyBytes_FromStringAndSize(NULL, size)
    spare = None
    Py_SET_SIZE(body, size)
    PyBytes_AS_STRING(body)[size] = 0
    return body


cdef object recycle_body(bytes body):
    # malloc() returns memory of this size to the system, and gets it back page by page for the next body: that costs
    # several times as much as receiving it.
    global spare, spare_capacity
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    if MIN_RECYCLED <= size <= MAX_RECYCLED and Py_REFCNT(<PyObject*> body) == 1:
        spare = body
        spare_capacity = size


cdef object lend_body(bytes body):
    global lent
    if MIN_RECYCLED <= PyBytes_GET_SIZE(body) <= MAX_RECYCLED:
        take_back()
        lent = body


cdef object take_back():
    """Recycle the body that was lent, if it has been sent."""
    global lent
    cdef bytes body
    if lent is not None and Py_REFCNT(<PyObject*> lent) == 1:
        body, lent = lent, None
        recycle_body(body)


def drop_spare():
    global spare, lent
    spare = lent = None


@cython.final
cdef class GrowingBody:
    """A response body of unknown length, in one block of memory however small its pieces are."""

    def __init__(self):
        raise TypeError("a GrowingBody comes from grow_from()")

    def __dealloc__(self):
        Py_XDECREF(self.block)

    cdef int add(self, bytes piece) except -1:
        cdef Py_ssize_t size = self.size + PyBytes_GET_SIZE(piece)
        if self.block is NULL:
            raise ValueError("the body was taken")
        if size > PyBytes_GET_SIZE(<object> self.block):
            # Grow by a further quarter; take() gives back what is left over.
            _PyBytes_Resize(&self.block, size + (size >> 2))
        memcpy(PyBytes_AS_STRING(<object> self.block) + self.size, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        self.size = size
        return 0

    cdef bytes take(self):
        cdef bytes body
        if self.block is NULL:
            raise ValueError("the body was taken")
        _PyBytes_Resize(&self.block, self.size)
        body = <bytes> <object> self.block
        Py_CLEAR(self.block)
        return body


cdef GrowingBody grow_from(bytes first, bytes second):
    cdef GrowingBody growing = GrowingBody.__new__(GrowingBody)
    cdef bytes block = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(first) + PyBytes_GET_SIZE(second) + MIN_GROWING)
    memcpy(PyBytes_AS_STRING(block), PyBytes_AS_STRING(first), PyBytes_GET_SIZE(first))
    growing.size = PyBytes_GET_SIZE(first)
    growing.block = <PyObject*> block
    Py_INCREF(block)
    block = None
    growing.add(second)
    return growing


@cython.final
cdef class BodyRoom:
    cdef bytes body
    cdef Py_ssize_t start
    cdef Py_ssize_t size

    def __init__(self):
        raise TypeError("a BodyRoom comes from Wire.get_buffer()")

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, PyBytes_AS_STRING(self.body) + self.start, self.size, False, flags)


cdef object room_in(bytes body, Py_ssize_t start, Py_ssize_t size):
    cdef BodyRoom room = BodyRoom.__new__(BodyRoom)
    room.body = body
    room.start = start
    room.size = size
    return memoryview(room)


cdef bint is_unshared(PyObject* data) noexcept:
    return Py_REFCNT(data) == 1


cdef WireReply make_reply(int status, list headers, bytes media_type, bytes body, Content content):
    cdef WireReply reply = WireReply.__new__(WireReply)
    reply.status = status
    reply.headers = headers
    reply.media_type = media_type
    reply.body = body
    reply.content = content
    return reply


seal(WireReply)
seal(Exchange)
seal(BodyRoom)
seal(GrowingBody)
