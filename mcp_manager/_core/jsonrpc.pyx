"""JSON-RPC 2.0 messages as byte ranges: every byte is validated, nothing is built until it is asked for."""

from json import loads

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

REQUEST = 0
NOTIFICATION = 1
RESULT = 2
ERROR = 3

cdef enum:
    _REQUEST = 0
    _NOTIFICATION = 1
    _RESULT = 2
    _ERROR = 3
    # Nesting is kept as one bit a level: object or array.
    DEPTH_LIMIT = 4096
    DEPTH_BYTES = 512
    # int() of CPython refuses more digits than this by default.
    MAX_ID_BYTES = 4096

cdef enum Member:
    OTHER = 0
    ID = 1
    METHOD = 2
    PARAMS = 3
    RESULT_MEMBER = 4
    ERROR_MEMBER = 5
    VERSION = 6

cdef struct Range:
    Py_ssize_t start
    Py_ssize_t end

cdef struct Fault:
    const char* reason
    Py_ssize_t offset


class FrameError(ValueError):
    def __init__(self, reason, offset):
        super().__init__(f"{reason} at byte {offset}")
        self.reason = reason
        self.offset = offset


cdef inline Py_ssize_t fail(Fault* fault, const char* reason, Py_ssize_t offset) noexcept nogil:
    fault.reason = reason
    fault.offset = offset
    return -1


cdef inline Py_ssize_t skip_space(const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    while at < end and (data[at] == 0x20 or data[at] == 0x0A or data[at] == 0x0D or data[at] == 0x09):
        at += 1
    return at


cdef inline bint plain_word(const uint8_t* data) noexcept nogil:
    """Whether the next eight bytes are printable ASCII without quote and backslash."""
    cdef uint64_t word
    memcpy(&word, data, 8)
    cdef uint64_t ones = 0x0101010101010101ULL
    cdef uint64_t highs = 0x8080808080808080ULL
    cdef uint64_t quotes = word ^ (ones * 0x22)
    cdef uint64_t slashes = word ^ (ones * 0x5C)
    # "Determine if a word has a byte less than n / equal to n", Bit Twiddling Hacks (S. E. Anderson).
    return (
        (word | (word - ones * 0x20) & ~word | (quotes - ones) & ~quotes | (slashes - ones) & ~slashes) & highs
    ) == 0


cdef inline bint is_continuation(uint8_t byte) noexcept nogil:
    return (byte & 0xC0) == 0x80


cdef Py_ssize_t skip_multibyte(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
    """Step over one sequence of RFC 3629, section 4: no overlong forms, no surrogates, nothing above U+10FFFF."""
    cdef uint8_t lead = data[at]
    cdef uint8_t second = data[at + 1] if at + 1 < end else 0
    if 0xC2 <= lead <= 0xDF:
        if is_continuation(second):
            return at + 2
    elif 0xE0 <= lead <= 0xEF:
        if (
            at + 2 < end
            and is_continuation(second)
            and is_continuation(data[at + 2])
            and not (lead == 0xE0 and second < 0xA0)
            and not (lead == 0xED and second >= 0xA0)
        ):
            return at + 3
    elif 0xF0 <= lead <= 0xF4:
        if (
            at + 3 < end
            and is_continuation(second)
            and is_continuation(data[at + 2])
            and is_continuation(data[at + 3])
            and not (lead == 0xF0 and second < 0x90)
            and not (lead == 0xF4 and second >= 0x90)
        ):
            return at + 4
    return fail(fault, b"invalid UTF-8", at)


cdef inline bint is_hex(uint8_t byte) noexcept nogil:
    return 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x46 or 0x61 <= byte <= 0x66


cdef Py_ssize_t skip_string(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, bint* escaped, Fault* fault
) noexcept nogil:
    """Step over a string; ``at`` is its opening quote."""
    cdef Py_ssize_t start = at
    cdef uint8_t byte
    cdef int digit
    at += 1
    while True:
        while at + 8 <= end and plain_word(data + at):
            at += 8
        if at >= end:
            return fail(fault, b"unterminated string", start)
        byte = data[at]
        if byte == 0x22:
            return at + 1
        if byte == 0x5C:
            escaped[0] = True
            if at + 1 >= end:
                return fail(fault, b"unterminated string", start)
            byte = data[at + 1]
            if byte == 0x75:
                if at + 6 > end:
                    return fail(fault, b"invalid escape", at)
                for digit in range(4):
                    if not is_hex(data[at + 2 + digit]):
                        return fail(fault, b"invalid escape", at)
                at += 6
            elif (
                byte == 0x22 or byte == 0x5C or byte == 0x2F or byte == 0x62
                or byte == 0x66 or byte == 0x6E or byte == 0x72 or byte == 0x74
            ):
                at += 2
            else:
                return fail(fault, b"invalid escape", at)
        elif byte < 0x20:
            return fail(fault, b"control character in a string", at)
        elif byte < 0x80:
            at += 1
        else:
            at = skip_multibyte(data, at, end, fault)
            if at < 0:
                return -1


cdef inline Py_ssize_t skip_digits(const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    while at < end and 0x30 <= data[at] <= 0x39:
        at += 1
    return at


cdef Py_ssize_t skip_number(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
    """Step over a number of RFC 8259, section 6."""
    cdef Py_ssize_t start = at
    cdef Py_ssize_t digits
    if data[at] == 0x2D:
        at += 1
    if at < end and data[at] == 0x30:
        at += 1
    else:
        digits = at
        at = skip_digits(data, at, end)
        if at == digits:
            return fail(fault, b"invalid number", start)
    if at < end and data[at] == 0x2E:
        digits = at + 1
        at = skip_digits(data, digits, end)
        if at == digits:
            return fail(fault, b"invalid number", start)
    if at < end and (data[at] | 0x20) == 0x65:
        at += 1
        if at < end and (data[at] == 0x2B or data[at] == 0x2D):
            at += 1
        digits = at
        at = skip_digits(data, digits, end)
        if at == digits:
            return fail(fault, b"invalid number", start)
    return at


cdef Py_ssize_t skip_scalar(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
    """Step over a string, number or literal; ``at`` is before the end."""
    cdef uint8_t byte = data[at]
    cdef bint escaped = False
    if byte == 0x22:
        return skip_string(data, at, end, &escaped, fault)
    if byte == 0x2D or 0x30 <= byte <= 0x39:
        return skip_number(data, at, end, fault)
    if byte == 0x74 and end - at >= 4 and memcmp(data + at, b"true", 4) == 0:
        return at + 4
    if byte == 0x66 and end - at >= 5 and memcmp(data + at, b"false", 5) == 0:
        return at + 5
    if byte == 0x6E and end - at >= 4 and memcmp(data + at, b"null", 4) == 0:
        return at + 4
    return fail(fault, b"expected a JSON value", at)


cdef Py_ssize_t skip_key(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Range* key, bint* escaped, Fault* fault
) noexcept nogil:
    """Step over a member's name and its colon, to the first byte of its value."""
    if at >= end or data[at] != 0x22:
        return fail(fault, b"expected a member name", at)
    escaped[0] = False
    key.start = at + 1
    at = skip_string(data, at, end, escaped, fault)
    if at < 0:
        return -1
    key.end = at - 1
    at = skip_space(data, at, end)
    if at >= end or data[at] != 0x3A:
        return fail(fault, b"expected ':'", at)
    at = skip_space(data, at + 1, end)
    if at >= end:
        return fail(fault, b"expected a JSON value", at)
    return at


cdef Py_ssize_t skip_value(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, int max_depth, Fault* fault
) noexcept nogil:
    """Step over one value of any depth without recursion; ``at`` is before the end."""
    cdef uint8_t[DEPTH_BYTES] objects
    cdef int depth = 0
    cdef uint8_t byte
    cdef Range key
    cdef bint escaped = False
    cdef bint in_object
    while True:
        byte = data[at]
        if byte == 0x7B or byte == 0x5B:
            if depth >= max_depth:
                return fail(fault, b"nested too deeply", at)
            in_object = byte == 0x7B
            if in_object:
                objects[depth >> 3] |= <uint8_t> (1 << (depth & 7))
            else:
                objects[depth >> 3] &= <uint8_t> ~(1 << (depth & 7))
            depth += 1
            at = skip_space(data, at + 1, end)
            if at >= end:
                return fail(fault, b"unexpected end", at)
            if data[at] != (0x7D if in_object else 0x5D):
                if in_object:
                    at = skip_key(data, at, end, &key, &escaped, fault)
                    if at < 0:
                        return -1
                continue
            at += 1
            depth -= 1
        else:
            at = skip_scalar(data, at, end, fault)
            if at < 0:
                return -1
        # A value has ended: close what it closes, or step to the next one.
        while depth > 0:
            at = skip_space(data, at, end)
            if at >= end:
                return fail(fault, b"unexpected end", at)
            in_object = objects[(depth - 1) >> 3] >> ((depth - 1) & 7) & 1
            if data[at] == 0x2C:
                at = skip_space(data, at + 1, end)
                if in_object:
                    at = skip_key(data, at, end, &key, &escaped, fault)
                    if at < 0:
                        return -1
                elif at >= end:
                    return fail(fault, b"unexpected end", at)
                break
            if data[at] != (0x7D if in_object else 0x5D):
                return fail(fault, b"expected ',' or a closing bracket", at)
            at += 1
            depth -= 1
        if depth == 0:
            return at


cdef Member member_of(const uint8_t* name, Py_ssize_t size) noexcept nogil:
    if size == 2 and memcmp(name, b"id", 2) == 0:
        return ID
    if size == 5 and memcmp(name, b"error", 5) == 0:
        return ERROR_MEMBER
    if size == 7 and memcmp(name, b"jsonrpc", 7) == 0:
        return VERSION
    if size == 6:
        if memcmp(name, b"result", 6) == 0:
            return RESULT_MEMBER
        if memcmp(name, b"method", 6) == 0:
            return METHOD
        if memcmp(name, b"params", 6) == 0:
            return PARAMS
    return OTHER


cdef Member escaped_member_of(bytes data, Range key):
    cdef bytes name = loads(data[key.start - 1:key.end + 1]).encode("utf-8", "surrogatepass")
    return member_of(<const uint8_t*> PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))


@cython.final
cdef class Message:
    cdef bytes data
    cdef Range whole
    cdef Range[7] members
    cdef readonly int kind
    cdef readonly object id
    cdef readonly str method

    def __init__(self):
        raise TypeError("a Message comes from scan()")

    cdef bytes cut(self, Range part):
        if part.start < 0:
            return None
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.data) + part.start, part.end - part.start)

    @property
    def frame(self):
        if self.whole.start == 0 and self.whole.end == PyBytes_GET_SIZE(self.data):
            return self.data
        return self.cut(self.whole)

    @property
    def id_raw(self):
        return self.cut(self.members[<int> ID])

    @property
    def method_raw(self):
        return self.cut(self.members[<int> METHOD])

    @property
    def params(self):
        return self.cut(self.members[<int> PARAMS])

    @property
    def result(self):
        return self.cut(self.members[<int> RESULT_MEMBER])

    @property
    def error(self):
        return self.cut(self.members[<int> ERROR_MEMBER])

    @property
    def error_code(self):
        if self.kind != _ERROR:
            return None
        return read_error_code(self.data, self.members[<int> ERROR_MEMBER])

    def with_id(self, bytes id_raw not None):
        cdef Range part = self.members[<int> ID]
        cdef bytes frame = self.data
        if part.start >= 0:
            return frame[self.whole.start:part.start] + id_raw + frame[part.end:self.whole.end]
        return b'{"id":' + id_raw + b"," + frame[self.whole.start + 1:self.whole.end]

    def __repr__(self):
        name = ("request", "notification", "result", "error")[self.kind]
        return f"<Message {name} id={self.id!r} method={self.method!r} {self.whole.end - self.whole.start} bytes>"


cdef object raise_fault(Fault* fault):
    raise FrameError(fault.reason.decode("ascii"), fault.offset)


cdef str read_text(bytes data, Range part, str what):
    """Decode a JSON string that is known to be valid; ``part`` includes its quotes."""
    cdef bytes raw = data[part.start:part.end]
    if b"\\" not in raw:
        return data[part.start + 1:part.end - 1].decode("utf-8")
    text = loads(raw)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise FrameError(f"{what} has a lone surrogate", part.start) from None
    return text


cdef object read_id(bytes data, Range part):
    cdef uint8_t first = <uint8_t> data[part.start]
    cdef bytes raw
    if first == 0x22:
        return read_text(data, part, "id")
    if first == 0x6E:
        return None
    if first != 0x2D and not 0x30 <= first <= 0x39:
        raise FrameError("id must be a string, a number or null", part.start)
    if part.end - part.start > MAX_ID_BYTES:
        raise FrameError("id has too many digits", part.start)
    raw = data[part.start:part.end]
    if b"." in raw or b"e" in raw or b"E" in raw:
        return float(raw)
    return int(raw)


cdef object read_error_code(bytes data, Range part):
    """Return the integer ``code`` of a valid error object, or raise."""
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t at = skip_space(text, part.start + 1, part.end)
    cdef Py_ssize_t start
    cdef Range key
    cdef Fault fault
    cdef bint escaped = False
    cdef object code = None
    cdef bint has_message = False
    cdef bytes name
    while text[at] != 0x7D:
        at = skip_key(text, at, part.end, &key, &escaped, &fault)
        start = at
        at = skip_value(text, at, part.end, DEPTH_LIMIT, &fault)
        name = data[key.start:key.end]
        if escaped:
            name = loads(data[key.start - 1:key.end + 1]).encode("utf-8", "surrogatepass")
        if name == b"code":
            code = None
            if (text[start] == 0x2D or 0x30 <= text[start] <= 0x39) and at - start <= 20:
                try:
                    code = int(data[start:at])
                except ValueError:
                    code = None
        elif name == b"message":
            has_message = text[start] == 0x22
        at = skip_space(text, at, part.end)
        if text[at] == 0x2C:
            at = skip_space(text, at + 1, part.end)
    if code is None:
        raise FrameError("error has no integer code", part.start)
    if not has_message:
        raise FrameError("error has no message", part.start)
    return code


cdef int settle(Message message, bint require_version) except -1:
    """Tell what kind of message it is, by JSON-RPC 2.0 sections 4 and 5."""
    cdef Range* members = message.members
    cdef bytes data = message.data
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t start = message.whole.start
    cdef Range part = members[<int> VERSION]
    if part.start >= 0:
        if text[part.start] != 0x22 or read_text(data, part, "jsonrpc") != "2.0":
            raise FrameError('jsonrpc must be "2.0"', part.start)
    elif require_version:
        raise FrameError('jsonrpc must be "2.0" and is missing', start)
    part = members[<int> ID]
    if part.start >= 0:
        message.id = read_id(data, part)
    part = members[<int> METHOD]
    if part.start >= 0:
        if text[part.start] != 0x22:
            raise FrameError("method must be a string", part.start)
        message.method = read_text(data, part, "method")
        part = members[<int> PARAMS]
        if part.start >= 0 and text[part.start] != 0x7B and text[part.start] != 0x5B:
            raise FrameError("params must be an object or an array", part.start)
        message.kind = _REQUEST if members[<int> ID].start >= 0 else _NOTIFICATION
        return 0
    if members[<int> RESULT_MEMBER].start >= 0:
        if members[<int> ERROR_MEMBER].start >= 0:
            raise FrameError("a response has result and error", start)
        if members[<int> ID].start < 0 or message.id is None:
            raise FrameError("a result needs an id", start)
        message.kind = _RESULT
        return 0
    part = members[<int> ERROR_MEMBER]
    if part.start < 0:
        raise FrameError("neither method, result nor error", start)
    if text[part.start] != 0x7B:
        raise FrameError("error must be an object", part.start)
    read_error_code(data, part)
    message.kind = _ERROR
    return 0


cdef Message scan_object(bytes data, Py_ssize_t at, int max_depth, bint require_version):
    """Scan the object that begins at ``at``; its end is in ``whole``."""
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Message message = Message.__new__(Message)
    cdef Fault fault
    cdef Range key
    cdef bint escaped = False
    cdef Member member
    cdef int index
    cdef Py_ssize_t start
    message.data = data
    for index in range(7):
        message.members[index].start = -1
    if at >= end or text[at] != 0x7B:
        raise FrameError("expected a JSON object", at)
    if max_depth < 1:
        raise FrameError("nested too deeply", at)
    message.whole.start = at
    at = skip_space(text, at + 1, end)
    while at < end and text[at] != 0x7D:
        at = skip_key(text, at, end, &key, &escaped, &fault)
        if at < 0:
            raise_fault(&fault)
        start = at
        at = skip_value(text, at, end, max_depth - 1, &fault)
        if at < 0:
            raise_fault(&fault)
        member = escaped_member_of(data, key) if escaped else member_of(text + key.start, key.end - key.start)
        if member != OTHER:
            # The last of several members of one name counts, as for json and msgspec.
            message.members[<int> member].start = start
            message.members[<int> member].end = at
        at = skip_space(text, at, end)
        if at < end and text[at] == 0x2C:
            at = skip_space(text, at + 1, end)
            if at < end and text[at] == 0x7D:
                raise FrameError("expected a member name", at)
        elif at >= end or text[at] != 0x7D:
            raise FrameError("expected ',' or '}'" if at < end else "unexpected end", at)
    if at >= end:
        raise FrameError("unexpected end", at)
    message.whole.end = at + 1
    settle(message, require_version)
    return message


cdef Py_ssize_t begin(bytes data, int max_depth, Py_ssize_t max_bytes) except -1:
    if max_depth > DEPTH_LIMIT:
        raise ValueError(f"max_depth must be at most {DEPTH_LIMIT}")
    if 0 < max_bytes < PyBytes_GET_SIZE(data):
        raise FrameError(f"longer than {max_bytes} bytes", max_bytes)
    return skip_space(<const uint8_t*> PyBytes_AS_STRING(data), 0, PyBytes_GET_SIZE(data))


cdef int expect_end(bytes data, Py_ssize_t at) except -1:
    at = skip_space(<const uint8_t*> PyBytes_AS_STRING(data), at, PyBytes_GET_SIZE(data))
    if at != PyBytes_GET_SIZE(data):
        raise FrameError("something follows the message", at)
    return 0


def scan(bytes data not None, *, int max_depth=512, Py_ssize_t max_bytes=0, bint require_version=False):
    cdef Message message = scan_object(data, begin(data, max_depth, max_bytes), max_depth, require_version)
    expect_end(data, message.whole.end)
    return message


def scan_batch(bytes data not None, *, int max_depth=512, Py_ssize_t max_bytes=0, bint require_version=False):
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at = begin(data, max_depth, max_bytes)
    cdef Message message
    cdef list messages = []
    if at >= end or text[at] != 0x5B:
        message = scan_object(data, at, max_depth, require_version)
        expect_end(data, message.whole.end)
        return [message]
    while True:
        at = skip_space(text, at + 1, end)
        if not messages and at < end and text[at] == 0x5D:
            raise FrameError("a batch must not be empty", at)
        message = scan_object(data, at, max_depth - 1, require_version)
        messages.append(message)
        at = skip_space(text, message.whole.end, end)
        if at < end and text[at] == 0x5D:
            expect_end(data, at + 1)
            return messages
        if at >= end or text[at] != 0x2C:
            raise FrameError("expected ',' or ']'" if at < end else "unexpected end", at)


cdef inline char* append(char* at, bytes part) noexcept:
    memcpy(at, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
    return at + PyBytes_GET_SIZE(part)


cdef bytes _ID_HEAD = b'{"jsonrpc":"2.0","id":'
cdef bytes _ID_METHOD = b',"method":'
cdef bytes _METHOD_HEAD = b'{"jsonrpc":"2.0","method":'
cdef bytes _PARAMS = b',"params":'


def request_frame(bytes method not None, bytes params, bytes id_raw not None):
    cdef Py_ssize_t size = (
        PyBytes_GET_SIZE(_ID_HEAD) + PyBytes_GET_SIZE(id_raw) + PyBytes_GET_SIZE(_ID_METHOD)
        + PyBytes_GET_SIZE(method) + 1
    )
    if params is not None:
        size += PyBytes_GET_SIZE(_PARAMS) + PyBytes_GET_SIZE(params)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, size)
    cdef char* at = append(PyBytes_AS_STRING(frame), _ID_HEAD)
    at = append(append(append(at, id_raw), _ID_METHOD), method)
    if params is not None:
        at = append(append(at, _PARAMS), params)
    at[0] = 0x7D
    return frame


def notification_frame(bytes method not None, bytes params):
    if params is None:
        return _METHOD_HEAD + method + b"}"
    return _METHOD_HEAD + method + _PARAMS + params + b"}"
