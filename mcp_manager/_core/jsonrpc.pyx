"""JSON-RPC 2.0 messages as byte ranges: a scan checks them and finds their members, which are copied on request."""

from json import loads

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy, memset

from mcp_manager._core.http_message cimport Exchange, is_unshared, make_exchange, recycle_body
from mcp_manager._core.json_text cimport (
    DEPTH_LIMIT, Fault, Range, fail, skip_brackets, skip_key, skip_scalar, skip_space, skip_value
)
from mcp_manager._core.leniency cimport METHOD_BESIDE, NOTHING, Overlooked, overlook
from mcp_manager._core.member_names cimport (
    CODE, ERROR_MEMBER, ID, MESSAGE, METHOD, Member, OTHER, PARAMS, RESULT_MEMBER, VERSION, member_named
)
from mcp_manager._core.sealing cimport seal

from mcp_manager._core.mending import mended_response

cdef extern from "json_blocks.h" nogil:
    enum: JSON_PORTABLE
    enum: JSON_AVX2
    enum: JSON_AVX512
    bint json_path_is_there(int path) noexcept
    Py_ssize_t json_skip_blocks(
        int path, const uint8_t* text, Py_ssize_t at, Py_ssize_t end, int max_depth
    ) noexcept

REQUEST, NOTIFICATION, RESULT, ERROR = range(4)

cdef enum:
    _REQUEST = 0
    _NOTIFICATION = 1
    _RESULT = 2
    _ERROR = 3
    # CPython's int() accepts this many digits whatever sys.set_int_max_str_digits() says.
    MAX_ID_BYTES = 640
    MAX_C_DIGITS = 18
    MAX_CODE_BYTES = 20
    # Shorter results are copied as fast as viewed.
    MIN_VIEW = 4096
    MIN_OVERWRITE = 32768
    # With fewer bytes left than this, reading byte by byte is faster than by blocks.
    SHORT = 32
    # A longer error is only delimited, as results are; a longer id, method or version is refused.
    LONG = 65536
    MAX_MEMBERS = 1024


class FrameError(ValueError):
    def __init__(self, reason, offset):
        super().__init__(f"{reason} at byte {offset}")
        self.reason = reason
        self.offset = offset


# It refers to bytes, strings and numbers only, so it needs no garbage collection.
@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Message:
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

    cpdef Exchange exchange(self, int64_t request_id, int64_t deadline_ns):
        cdef const char* text = PyBytes_AS_STRING(self.data)
        cdef Range method = self.members[<int> METHOD]
        cdef Range params = self.members[<int> PARAMS]
        cdef const char* params_text = NULL
        if method.start < 0:
            raise ValueError("a response cannot be sent as a request")
        if params.start >= 0:
            params_text = text + params.start
        return make_exchange(
            text + method.start, method.end - method.start, NULL, 0, params_text, params.end - params.start,
            request_id, deadline_ns,
        )

    @property
    def result_buffer(self):
        cdef Range part = self.members[<int> RESULT_MEMBER]
        if part.start < 0:
            return None
        if part.end - part.start < MIN_VIEW:
            return self.cut(part)
        return memoryview(self.data)[part.start:part.end]

    def take_frame(self, bytes id_raw=None):
        cdef bytes frame
        if id_raw is None:
            frame = self.frame
        elif self.overwrite_id(id_raw):
            frame = self.data
        else:
            frame = self.with_id(id_raw)
        self.empty()
        return frame

    def take_text(self, bytes id_raw=None):
        cdef bytes frame
        cdef str text
        if id_raw is not None and not self.overwrite_id(id_raw):
            frame = self.with_id(id_raw)
            text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), NULL)
        else:
            text = PyUnicode_DecodeUTF8(
                PyBytes_AS_STRING(self.data) + self.whole.start, self.whole.end - self.whole.start, NULL
            )
        self.recycle()
        return text

    def recycle(self):
        cdef bytes data = self.data
        self.empty()
        recycle_body(data)

    cdef object empty(self):
        # No member may be read from beyond the empty text.
        self.data = b""
        self.whole.start = self.whole.end = 0
        for member in range(MEMBERS):
            self.members[member].start = -1

    cdef bint overwrite_id(self, bytes id_raw):
        """Overwrite the id of a long frame that nothing else refers to, padded with spaces; ``False`` otherwise."""
        cdef Range part = self.members[<int> ID]
        cdef Py_ssize_t size = PyBytes_GET_SIZE(id_raw)
        if (
            part.start < 0
            or size > part.end - part.start
            or PyBytes_GET_SIZE(self.data) < MIN_OVERWRITE
            or self.whole.start != 0
            or self.whole.end != PyBytes_GET_SIZE(self.data)
            or not is_unshared(<PyObject*> self.data)
        ):
            return False
        memcpy(PyBytes_AS_STRING(self.data) + part.start, PyBytes_AS_STRING(id_raw), size)
        memset(PyBytes_AS_STRING(self.data) + part.start + size, 0x20, part.end - part.start - size)
        return True

    def with_id(self, bytes id_raw not None):
        cdef Range part = self.members[<int> ID]
        cdef const char* text = PyBytes_AS_STRING(self.data)
        cdef Py_ssize_t id_size = PyBytes_GET_SIZE(id_raw)
        cdef Py_ssize_t before, after
        cdef bytes frame
        if part.start < 0:
            return b'{"id":' + id_raw + b"," + self.data[self.whole.start + 1:self.whole.end]
        before = part.start - self.whole.start
        after = self.whole.end - part.end
        frame = PyBytes_FromStringAndSize(NULL, before + id_size + after)
        memcpy(PyBytes_AS_STRING(frame), text + self.whole.start, before)
        memcpy(PyBytes_AS_STRING(frame) + before, PyBytes_AS_STRING(id_raw), id_size)
        memcpy(PyBytes_AS_STRING(frame) + before + id_size, text + part.end, after)
        return frame

    def __repr__(self):
        name = ("request", "notification", "result", "error")[self.kind]
        size = self.whole.end - self.whole.start
        return f"<Message {name} id={self.id!r:.80} method={self.method!r:.80} {size} bytes>"


seal(Message)
_PATHS = {"portable": JSON_PORTABLE, "avx2": JSON_AVX2, "avx512": JSON_AVX512}
cdef int _path = JSON_PORTABLE


def vector_paths():
    return tuple(name for name, path in _PATHS.items() if json_path_is_there(path))


def vector_path():
    return next(name for name, path in _PATHS.items() if path == _path)


def use_vector_path(str name not None):
    global _path
    if name not in vector_paths():
        raise ValueError(f"this machine has no scan named {name!r:.40}")
    _path = _PATHS[name]


use_vector_path(max(vector_paths(), key=_PATHS.get))


cdef inline Py_ssize_t skip_nested(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, int max_depth, Fault* fault
) noexcept nogil:
    """Step over the object or array at ``at``, at least five bytes into the message, without parsing its grammar."""
    cdef Py_ssize_t after
    if _path == JSON_PORTABLE or end - at < SHORT:
        return skip_brackets(data, at, end, max_depth, fault)
    after = json_skip_blocks(_path, data, at, end, max_depth)
    if after < 0 and skip_brackets(data, at, end, max_depth, fault) >= 0:
        # The scan by blocks finds that something is wrong, the one by bytes what and where; they never disagree.
        return fail(fault, b"unexpected end", at)
    return after


cdef object raise_fault(Fault* fault):
    raise FrameError(fault.reason.decode("ascii"), fault.offset)


cdef str read_text(bytes data, Range part, str what):
    """Decode a JSON string that is known to be valid; ``part`` includes its quotes."""
    cdef const char* inner = PyBytes_AS_STRING(data) + part.start + 1
    cdef Py_ssize_t size = part.end - part.start - 2
    if size > LONG:
        raise FrameError(f"{what} is too long", part.start)
    if memchr(inner, 0x5C, size) is NULL:
        return PyUnicode_DecodeUTF8(inner, size, NULL)
    text = loads(data[part.start:part.end])
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise FrameError(f"{what} has a lone surrogate", part.start) from None
    return text


cdef inline bint read_small(bytes data, Range part, int64_t* number) noexcept:
    """Read an integer that fits 64 bits; ``False`` for anything else."""
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t at = part.start
    cdef int64_t total = 0
    cdef bint negative = text[at] == 0x2D
    at += negative
    while at < part.end:
        if not 0x30 <= text[at] <= 0x39:
            return False
        total = total * 10 + (text[at] - 0x30)
        at += 1
    number[0] = -total if negative else total
    return True


cdef object read_id(bytes data, Range part):
    cdef uint8_t first = (<const uint8_t*> PyBytes_AS_STRING(data))[part.start]
    cdef int64_t small = 0
    cdef bytes raw
    if first == 0x22:
        return read_text(data, part, "id")
    if first == 0x6E:
        return None
    if first != 0x2D and not 0x30 <= first <= 0x39:
        raise FrameError("id must be a string, a number or null", part.start)
    if part.end - part.start <= MAX_C_DIGITS and read_small(data, part, &small):
        return small
    if part.end - part.start > MAX_ID_BYTES:
        raise FrameError("id has too many digits", part.start)
    raw = data[part.start:part.end]
    if b"." in raw or b"e" in raw or b"E" in raw:
        return float(raw)
    return int(raw)


cdef object read_code(bytes data, Range part):
    """Return an error's code, ``None`` if it is not an integer of at most 20 characters."""
    cdef uint8_t first = (<const uint8_t*> PyBytes_AS_STRING(data))[part.start]
    cdef int64_t small = 0
    if part.end - part.start > MAX_CODE_BYTES or (first != 0x2D and not 0x30 <= first <= 0x39):
        return None
    if part.end - part.start <= MAX_C_DIGITS:
        return small if read_small(data, part, &small) else None
    try:
        return int(data[part.start:part.end])
    except ValueError:
        return None


cdef object read_error_code(bytes data, Range part, bint lenient):
    """Return the integer ``code`` of an error object whose JSON is valid, or raise; ``None`` if it must be mended."""
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t at = skip_space(text, part.start + 1, part.end)
    cdef Range key, value
    cdef Fault fault
    cdef bint escaped = False, has_message = False
    cdef object code = None
    cdef Member member
    cdef int count = 0
    key.start = key.end = 0
    while text[at] != 0x7D:
        if count == MAX_MEMBERS:
            raise FrameError("an error with too many members", at)
        count += 1
        at = value.start = skip_key(text, at, part.end, &key, &escaped, &fault)
        if at >= 0 and (text[at] == 0x7B or text[at] == 0x5B):
            at = value.end = skip_nested(text, at, part.end, DEPTH_LIMIT, &fault)
        elif at >= 0:
            at = value.end = skip_scalar(text, at, part.end, &fault)
        if at < 0:
            raise_fault(&fault)
        member = member_named(text + key.start, key.end - key.start, escaped)
        if member == CODE:
            code = read_code(data, value)
        elif member == MESSAGE:
            has_message = text[value.start] == 0x22
        at = skip_space(text, at, part.end)
        if text[at] == 0x2C:
            at = skip_space(text, at + 1, part.end)
        elif text[at] != 0x7D:
            raise FrameError("expected ',' or '}'", at)
    if lenient and (code is None or not has_message):
        return None
    if code is None:
        raise FrameError("error has no integer code", part.start)
    if not has_message:
        raise FrameError("error has no message", part.start)
    return code


cdef inline bint is_version(bytes data, Range part):
    cdef const char* text = PyBytes_AS_STRING(data) + part.start
    if part.end - part.start == 5 and memcmp(text, b'"2.0"', 5) == 0:
        return True
    return text[0] == 0x22 and read_text(data, part, "jsonrpc") == "2.0"


cdef int settle(Message message, bint require_version, bint lenient) except -1:
    """Determine the kind of a message (JSON-RPC 2.0, sections 4 and 5); ``lenient`` accepts harmless deviations."""
    cdef Range* members = message.members
    cdef bytes data = message.data
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t start = message.whole.start
    cdef Range part = members[<int> VERSION]
    cdef Overlooked overlooked
    if part.start >= 0:
        if not is_version(data, part):
            if not lenient:
                raise FrameError('jsonrpc must be "2.0"', part.start)
            message.oddity = _OTHER_VERSION
    elif lenient:
        message.oddity = _NO_VERSION
    elif require_version:
        raise FrameError('jsonrpc must be "2.0" and is missing', start)
    if lenient:
        overlooked = overlook(members, text)
        if overlooked != NOTHING:
            message.oddity = _METHOD_BESIDE if overlooked == METHOD_BESIDE else _NULL_MEMBER
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
    if lenient and type(message.id) is not int and message.id is not None:
        read_as_integer(message)
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
    message.error_code = read_error_code(data, part, lenient)
    if message.error_code is None:
        message.oddity = _ODD_ERROR
    message.kind = _ERROR
    return 0


# The deviations of received messages that are accepted, as they are counted.
cdef str _NO_VERSION = "a message without jsonrpc"
cdef str _OTHER_VERSION = "a message of another jsonrpc version"
cdef str _NULL_MEMBER = "a member that is null and should be absent"
cdef str _METHOD_BESIDE = "a reply with a method"
cdef str _ID_AS_TEXT = "an id that came back as text"
cdef str _ID_AS_FRACTION = "an id that came back as a fraction"
cdef str _ODD_ERROR = "an error object that breaks JSON-RPC"


cdef int read_as_integer(Message message) except -1:
    """Read a response's id that is an integer in another form: some servers convert the integers they are sent."""
    cdef object given = message.id
    if type(given) is str:
        # Only the exact decimal text: nothing that merely resembles an id may end a call.
        if 0 < len(given) <= MAX_C_DIGITS and given.isascii() and given.isdigit() and str(int(given)) == given:
            message.id = int(given)
            message.oddity = _ID_AS_TEXT
    # Up to 2 ** 53, a float is exactly the integer that was meant.
    elif given.is_integer() and abs(given) <= 9007199254740992.0:
        message.id = int(given)
        message.oddity = _ID_AS_FRACTION
    return 0


cdef Message mended(Message message):
    """Rewrite a received response that is not quite JSON-RPC 2.0, so that it can be forwarded."""
    cdef Message again
    if message.kind != _RESULT and message.kind != _ERROR:
        return message
    id_raw = b"%d" % message.id if type(message.id) is int else message.id_raw
    frame = mended_response(id_raw, message.result_buffer, message.error, message.error_code)
    if frame is None:
        raise FrameError("error has no integer code", message.members[<int> ERROR_MEMBER].start)
    again = scan_one(frame, DEPTH_LIMIT, 0, False, True)
    again.oddity = message.oddity
    return again


cdef Message scan_object(bytes data, Py_ssize_t at, int max_depth, bint require_version, bint is_reply):
    """Scan the object that begins at ``at``; its end is in ``whole``."""
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Message message = Message.__new__(Message)
    cdef Fault fault
    cdef Range key
    cdef bint escaped = False
    cdef Member member
    cdef int index, count = 0
    cdef Py_ssize_t start
    message.data = data
    key.start = key.end = 0
    for index in range(MEMBERS):
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
        member = member_named(text + key.start, key.end - key.start, escaped)
        start = at
        count += 1
        if count > MAX_MEMBERS:
            raise FrameError("too many members", at)
        # An error object is small, and will be decoded.
        if is_reply and (member != ERROR_MEMBER or end - at > LONG) and (text[at] == 0x7B or text[at] == 0x5B):
            at = skip_nested(text, at, end, max_depth - 1, &fault)
        else:
            at = skip_value(text, at, end, max_depth - 1, &fault)
        if at < 0:
            raise_fault(&fault)
        if OTHER < member < CODE:
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
    settle(message, require_version, is_reply)
    return message


cdef Py_ssize_t begin(bytes data, int max_depth, Py_ssize_t max_bytes) except -1:
    if not 0 <= max_depth <= DEPTH_LIMIT:
        raise ValueError(f"max_depth must be 0 to {DEPTH_LIMIT}, not {max_depth}")
    if 0 < max_bytes < PyBytes_GET_SIZE(data):
        raise FrameError(f"longer than {max_bytes} bytes", max_bytes)
    return skip_space(<const uint8_t*> PyBytes_AS_STRING(data), 0, PyBytes_GET_SIZE(data))


cdef int expect_end(bytes data, Py_ssize_t at) except -1:
    at = skip_space(<const uint8_t*> PyBytes_AS_STRING(data), at, PyBytes_GET_SIZE(data))
    if at != PyBytes_GET_SIZE(data):
        raise FrameError("something follows the message", at)
    return 0


cdef Message scan_one(bytes data, int max_depth, Py_ssize_t max_bytes, bint require_version, bint is_reply):
    cdef Py_ssize_t at = begin(data, max_depth, max_bytes)
    cdef Message message = scan_object(data, at, max_depth, require_version, is_reply)
    expect_end(data, message.whole.end)
    return message if message.oddity is None else mended(message)


cdef list scan_several(
    bytes data, int max_depth, Py_ssize_t max_bytes, bint require_version, bint is_reply, Py_ssize_t max_messages
):
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at = begin(data, max_depth, max_bytes)
    cdef Message message
    cdef list messages = []
    if at >= end or text[at] != 0x5B:
        message = scan_object(data, at, max_depth, require_version, is_reply)
        expect_end(data, message.whole.end)
        return [message if message.oddity is None else mended(message)]
    while True:
        at = skip_space(text, at + 1, end)
        if not messages and at < end and text[at] == 0x5D:
            raise FrameError("a batch must not be empty", at)
        if len(messages) >= max_messages:
            raise FrameError(f"a batch of more than {max_messages} messages", at)
        message = scan_object(data, at, max_depth - 1, require_version, is_reply)
        messages.append(message if message.oddity is None else mended(message))
        at = skip_space(text, message.whole.end, end)
        if at < end and text[at] == 0x5D:
            expect_end(data, at + 1)
            return messages
        if at >= end or text[at] != 0x2C:
            raise FrameError("expected ',' or ']'" if at < end else "unexpected end", at)


def scan(bytes data not None, *, int max_depth=512, Py_ssize_t max_bytes=0, bint require_version=False):
    return scan_one(data, max_depth, max_bytes, require_version, False)


def scan_batch(bytes data not None, *, int max_depth=512, Py_ssize_t max_bytes=0, bint require_version=False):
    return scan_several(data, max_depth, max_bytes, require_version, False, PyBytes_GET_SIZE(data))


def scan_reply(bytes data not None, *, int max_depth=512, Py_ssize_t max_bytes=0):
    return scan_one(data, max_depth, max_bytes, False, True)


def scan_replies(bytes data not None, *, int max_depth=512, Py_ssize_t max_bytes=0, Py_ssize_t max_messages=256):
    return scan_several(data, max_depth, max_bytes, False, True, max_messages)


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
