"""Repairs JSON that servers write slightly wrong, and finds in it what decoding into records would lose."""

from json import dumps

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.json_text cimport (
    DEPTH_LIMIT, Fault, Range, is_hex, skip_brackets, skip_key, skip_scalar, skip_space
)
from mcp_manager._core.member_names cimport CODE, Member, member_named

cdef enum:
    MAX_CODE_BYTES = 20
    ESCAPE_SIZE = 6

cdef tuple ERROR_MEMBERS = ("code", "message", "data")

# Up to here, a float is exactly the integer that was meant.
cdef double MAX_EXACT = 9007199254740991.0


def mended_response(bytes id_raw, result, bytes error, code):
    # Joined in one step, since a part may be nearly as long as the longest reply.
    cdef bytes name = b',"result":'
    if result is None:
        result = error if code is not None else mended_error(error)
        name = b',"error":'
        if result is None:
            return None
    return b"".join((b'{"jsonrpc":"2.0","id":', b"null" if id_raw is None else id_raw, name, result, b"}"))


def mended_error(bytes error not None):
    cdef dict members = error_members(error, PyBytes_GET_SIZE(error))
    cdef bytes message = members.get("message", b"null")
    code = as_integer(members.get("code", b"null"))
    if code is None:
        return None
    if not message.startswith(b'"'):
        message = dumps("" if message == b"null" else message.decode()).encode()
    written = [b'{"code":%d,"message":' % code, message]
    if "data" in members:
        written += [b',"data":', members["data"]]
    return b"".join([*written, b"}"])


cdef object as_integer(bytes number):
    """Return the integer that a number, or the text of one, stands for; ``None`` if it is not one."""
    if number.startswith(b'"'):
        number = number[1:len(number) - 1]
    if not 0 < len(number) <= MAX_CODE_BYTES or number.strip(b"-+.0123456789eE"):
        return None
    try:
        return int(number)
    except ValueError:
        pass
    try:
        fraction = float(number)
    except ValueError:
        return None
    return int(fraction) if fraction.is_integer() and abs(fraction) <= MAX_EXACT else None


def error_members(bytes data not None, Py_ssize_t longest):
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at = skip_space(text, 1, end)
    cdef Range key, value
    cdef Fault fault
    cdef bint escaped = False
    cdef Member member
    cdef dict members = {}
    key.start = key.end = value.start = value.end = 0
    while at < end and text[at] != 0x7D:
        at = value.start = skip_key(text, at, end, &key, &escaped, &fault)
        if at >= 0 and (text[at] == 0x7B or text[at] == 0x5B):
            at = value.end = skip_brackets(text, at, end, DEPTH_LIMIT, &fault)
        elif at >= 0:
            at = value.end = skip_scalar(text, at, end, &fault)
        if at < 0:
            # The grammar of a long error was not checked before.
            break
        member = member_named(text + key.start, key.end - key.start, escaped)
        if member >= CODE:
            members[ERROR_MEMBERS[<int> member - <int> CODE]] = data[value.start:min(value.end, value.start + longest)]
            if longest < end and "code" in members and "message" in members:
                # Most often, the rest is too long to read.
                break
        at = skip_space(text, at, end)
        if at < end and text[at] == 0x2C:
            at = skip_space(text, at + 1, end)
    return members


cdef inline int surrogate_at(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return which half of a surrogate pair an escape is: 1 the first, 2 the second, 0 neither."""
    cdef uint8_t third
    if end - at < ESCAPE_SIZE or text[at + 1] != 0x75 or (text[at + 2] | 0x20) != 0x64:
        return 0
    if not (is_hex(text[at + 3]) and is_hex(text[at + 4]) and is_hex(text[at + 5])):
        return 0
    third = text[at + 3] | 0x20
    if third == 0x38 or third == 0x39 or third == 0x61 or third == 0x62:
        return 1
    return 2 if 0x63 <= third <= 0x66 else 0


def without_lone_surrogates(data not None):
    cdef const uint8_t[::1] view = data
    cdef Py_ssize_t end = view.shape[0]
    cdef const uint8_t* text = NULL
    cdef Py_ssize_t at = 0
    cdef bytes written = None
    cdef const uint8_t* found
    cdef int half
    if end > 0:
        text = &view[0]
    while at < end:
        found = <const uint8_t*> memchr(text + at, 0x5C, end - at)
        if found is NULL:
            break
        at = found - text
        half = surrogate_at(text, at, end)
        if half == 0:
            # Step over the escaped byte as well: it may be a backslash.
            at += 2
        elif half == 1 and at + ESCAPE_SIZE < end and text[at + ESCAPE_SIZE] == 0x5C and (
            surrogate_at(text, at + ESCAPE_SIZE, end) == 2
        ):
            at += 2 * ESCAPE_SIZE
        else:
            if written is None:
                written = PyBytes_FromStringAndSize(<const char*> text, end)
            memcpy(PyBytes_AS_STRING(written) + at, <const char*> b"\\ufffd", ESCAPE_SIZE)
            at += ESCAPE_SIZE
    return data if written is None else written


cdef inline int constant_at(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return the length of a constant at ``at`` that is not valid JSON, 0 if there is none."""
    if text[at] == 0x4E and end - at >= 3 and memcmp(text + at, b"NaN", 3) == 0:
        return 3
    if text[at] == 0x49 and end - at >= 8 and memcmp(text + at, b"Infinity", 8) == 0:
        return 8
    return 0


cdef inline Py_ssize_t copy_without_constants(const uint8_t* text, Py_ssize_t end, char* target) noexcept nogil:
    """Copy JSON text with constants replaced, or only measure the copy; return its length, 0 if there are none."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t size = 0
    cdef bint in_string = False
    cdef int length
    while at < end:
        if in_string:
            if text[at] == 0x5C:
                at += 1
            elif text[at] == 0x22:
                in_string = False
        elif text[at] == 0x22:
            in_string = True
        else:
            length = constant_at(text, at, end)
            if length:
                if target is not NULL:
                    memcpy(target + size, text + start, at - start)
                    memcpy(target + size + at - start, b"null" if length == 3 else b"1e999", 4 if length == 3 else 5)
                size += at - start + (4 if length == 3 else 5)
                start = at + length
                at = start - 1
        at += 1
    if start == 0:
        return 0
    if target is not NULL:
        memcpy(target + size, text + start, end - start)
    return size + end - start


def without_constants(bytes data not None):
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t size = copy_without_constants(text, end, NULL)
    cdef bytes written
    if size == 0:
        return data
    written = PyBytes_FromStringAndSize(NULL, size)
    copy_without_constants(text, end, PyBytes_AS_STRING(written))
    return written


cdef inline bint is_default(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return whether a value is null, false or empty; ``at`` may be before white space."""
    cdef uint8_t closing
    at = skip_space(text, at, end)
    if at >= end:
        return False
    if text[at] == 0x6E or text[at] == 0x66:
        return True
    if text[at] == 0x22:
        closing = 0x22
        at += 1
    elif text[at] == 0x5B or text[at] == 0x7B:
        closing = text[at] + 2
        at = skip_space(text, at + 1, end)
    else:
        return False
    return at < end and text[at] == closing


def says_default(bytes data not None, names not None):
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t name_end, name_start
    cdef const uint8_t* found
    while at < end:
        found = <const uint8_t*> memchr(text + at, 0x3A, end - at)
        if found is NULL:
            return False
        at = found - text + 1
        if not is_default(text, at, end):
            continue
        name_end = at - 2
        while name_end > 0 and text[name_end] <= 0x20:
            name_end -= 1
        if name_end <= 0 or text[name_end] != 0x22:
            continue
        name_start = name_end
        while name_start > 0 and text[name_start - 1] != 0x22:
            name_start -= 1
        # A name with escapes may be any of them.
        if data[name_start:name_end] in names or memchr(text + name_start, 0x5C, name_end - name_start) is not NULL:
            return True
    return False
