"""Finds a member in JSON text and puts another value in its place, so that all other bytes stay as they are."""

from json import loads

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.json_text cimport Fault, Range, skip_brackets, skip_key, skip_scalar, skip_space
from mcp_manager._core.jsonrpc cimport MEMBERS, Message
from mcp_manager._core.member_names cimport PARAMS

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* first, const char* second, size_t size)

cdef enum:
    MAX_DEPTH = 512
    MAX_MEMBERS = 1024


class UnclearMemberError(ValueError):
    pass


cdef object unclear(str why):
    raise UnclearMemberError(why)


cdef bint find(
    const uint8_t* text, Range whole, const char* name, Py_ssize_t size, bint sole, Range* found
) except -1:
    """Find the value of a member of the object in ``whole``, which was scanned before; its brackets are there.

    ``sole``: no other member may have the name in other letters, because some libraries take it for the same.
    """
    cdef Range key
    cdef Fault fault
    cdef bint escaped = False
    cdef Py_ssize_t value
    cdef Py_ssize_t at = skip_space(text, whole.start, whole.end)
    cdef int count = 0
    found.start = -1
    found.end = -1
    key.start = key.end = 0
    if at >= whole.end or text[at] != 0x7B:
        return False
    at = skip_space(text, at + 1, whole.end)
    while at < whole.end and text[at] == 0x22:
        value = skip_key(text, at, whole.end, &key, &escaped, &fault)
        if value < 0:
            return unclear("it is malformed")
        if escaped:
            return unclear("a name has escapes")
        if count == MAX_MEMBERS:
            return unclear("it has too many members")
        count += 1
        if text[value] == 0x7B or text[value] == 0x5B:
            at = skip_brackets(text, value, whole.end, MAX_DEPTH, &fault)
        else:
            at = skip_scalar(text, value, whole.end, &fault)
        if at < 0:
            return unclear("it is malformed")
        if key.end - key.start == size and strncasecmp(<const char*> text + key.start, name, size) == 0:
            if memcmp(text + key.start, name, size) != 0:
                if sole:
                    return unclear("a name is there in other letters")
            elif found.start >= 0:
                return unclear("a name is there twice")
            else:
                found.start = value
                found.end = at
        at = skip_space(text, at, whole.end)
        if at < whole.end and text[at] == 0x2C:
            at = skip_space(text, at + 1, whole.end)
    return found.start >= 0


def member_range(bytes text not None, bytes name not None):
    cdef Range whole, found
    whole.start = 0
    whole.end = PyBytes_GET_SIZE(text)
    if not find(
        <const uint8_t*> PyBytes_AS_STRING(text), whole, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), False, &found
    ):
        return None
    return found.start, found.end


def text_param(Message message not None, bytes name not None):
    cdef Range found
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(message.data)
    cdef Range params = message.members[<int> PARAMS]
    cdef object value
    if params.start < 0 or not find(
        text, params, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), True, &found
    ):
        return None
    if text[found.start] != 0x22:
        return None
    if memchr(text + found.start, 0x5C, found.end - found.start) is NULL:
        value = PyUnicode_DecodeUTF8(<const char*> text + found.start + 1, found.end - found.start - 2, NULL)
    else:
        value = loads(message.data[found.start:found.end])
    return value, found.start, found.end


def with_range(Message message not None, Py_ssize_t start, Py_ssize_t end, bytes value not None):
    cdef Range params = message.members[<int> PARAMS]
    if start < params.start or start > end or end > params.end or params.start < 0:
        raise ValueError("the range is not in the params")
    return replaced(message, start, end, value)


def with_params(Message message not None, bytes params not None):
    cdef Range old = message.members[<int> PARAMS]
    if old.start < 0:
        raise ValueError("the message has no params")
    return replaced(message, old.start, old.end, params)


cdef Message replaced(Message message, Py_ssize_t start, Py_ssize_t end, bytes value):
    """Return a copy of a message with other bytes in a range that is in its params."""
    cdef Message copy = Message.__new__(Message)
    cdef const char* text = PyBytes_AS_STRING(message.data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t before = start - message.whole.start
    cdef Py_ssize_t after = message.whole.end - end
    cdef Py_ssize_t shift = size - (end - start)
    cdef bytes data = PyBytes_FromStringAndSize(NULL, before + size + after)
    cdef int member
    cdef Range part
    memcpy(PyBytes_AS_STRING(data), text + message.whole.start, before)
    memcpy(PyBytes_AS_STRING(data) + before, PyBytes_AS_STRING(value), size)
    memcpy(PyBytes_AS_STRING(data) + before + size, text + end, after)
    for member in range(MEMBERS):
        part = message.members[member]
        if part.start >= 0:
            if part.start >= end and member != <int> PARAMS:
                part.start += shift
            if part.end >= end:
                part.end += shift
            part.start -= message.whole.start
            part.end -= message.whole.start
        copy.members[member] = part
    copy.data = data
    copy.whole.start = 0
    copy.whole.end = PyBytes_GET_SIZE(data)
    copy.kind = message.kind
    copy.id = message.id
    copy.method = message.method
    copy.error_code = message.error_code
    copy.oddity = message.oddity
    return copy
