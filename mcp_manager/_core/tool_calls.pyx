"""Finds the name of the called tool in a request, and ``isError`` in its result, without decoding either."""

from json import loads

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from mcp_manager._core.http_message cimport Request
from mcp_manager._core.json_text cimport Fault, Range, skip_brackets, skip_key, skip_scalar, skip_space, skip_string
from mcp_manager._core.jsonrpc cimport Message
from mcp_manager._core.member_names cimport PARAMS, RESULT_MEMBER
from mcp_manager._core.records cimport Lease
from mcp_manager._core.tool_table cimport OTHER_TOOL, ToolTable

cdef enum:
    MAX_DEPTH = 512
    OPENING_SIZE = 9
    # "isError", and the position of its rarest byte.
    IS_ERROR_SIZE = 9
    IS_ERROR_RARE = 3
    # A longer result is searched only this far from both ends: where servers put the member, before or behind the
    # content.
    LONG_RESULT = 65536
    SEARCHED = 4096


cdef inline Py_ssize_t skip_member(const uint8_t* text, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept:
    """Step over the value of a member of an object that was scanned before."""
    if text[at] == 0x7B or text[at] == 0x5B:
        return skip_brackets(text, at, end, MAX_DEPTH, fault)
    return skip_scalar(text, at, end, fault)


cdef Py_ssize_t find_member(
    const uint8_t* text, Py_ssize_t at, Py_ssize_t end, const char* name, Py_ssize_t size
) noexcept:
    """Return where the value of an object's last member of this name begins; -1 without one.

    The object was scanned before, and begins at ``at``. Names that are written with escapes are not found.
    """
    cdef Range key
    cdef Fault fault
    cdef bint escaped = False
    cdef Py_ssize_t value
    cdef Py_ssize_t found = -1
    at = skip_space(text, at + 1, end)
    while at < end and text[at] == 0x22:
        value = skip_key(text, at, end, &key, &escaped, &fault)
        if value < 0:
            return -1
        if key.end - key.start == size and memcmp(text + key.start, name, size) == 0:
            found = value
        at = skip_member(text, value, end, &fault)
        if at < 0:
            return -1
        at = skip_space(text, at, end)
        if at < end and text[at] == 0x2C:
            at = skip_space(text, at + 1, end)
    return found


cdef void name_call(ToolTable table, Lease lease, object request) noexcept:
    """Note which tool the lease of a ``tools/call`` is for."""
    cdef bytes data
    cdef Range part
    cdef const uint8_t* text
    cdef const uint8_t* quote
    cdef Py_ssize_t size
    cdef Fault fault
    cdef bint escaped = False
    lease.tool = OTHER_TOOL
    if type(request) is Request:
        data = (<Request> request).params
        if data is None:
            return
        part.start = 0
        part.end = PyBytes_GET_SIZE(data)
    elif type(request) is Message:
        data = (<Message> request).data
        part = (<Message> request).members[<int> PARAMS]
        if part.start < 0:
            return
    else:
        return
    text = <const uint8_t*> PyBytes_AS_STRING(data)
    part.start = skip_space(text, part.start, part.end)
    size = part.end - part.start
    if size > OPENING_SIZE and memcmp(text + part.start, <const char*> b'{"name":"', OPENING_SIZE) == 0:
        # As most params begin.
        part.start += OPENING_SIZE
    else:
        if part.start >= part.end or text[part.start] != 0x7B:
            return
        part.start = find_member(text, part.start, part.end, b"name", 4)
        if part.start < 0 or text[part.start] != 0x22:
            return
        part.start += 1
    quote = <const uint8_t*> memchr(text + part.start, 0x22, part.end - part.start)
    if quote is NULL:
        return
    if memchr(text + part.start, 0x5C, quote - text - part.start) is NULL:
        table.name(lease, <const char*> text + part.start, quote - text - part.start)
        return
    part.end = skip_string(text, part.start - 1, part.end, &escaped, &fault)
    if part.end < 0:
        return
    try:
        table.name_by(lease, loads(data[part.start - 1:part.end]))
    except Exception:
        # A call does not fail because it cannot be counted by name.
        lease.tool = OTHER_TOOL


cdef bint has_true(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Return whether a text has ``"isError"`` with the value ``true`` anywhere."""
    cdef const uint8_t* found
    cdef Py_ssize_t value
    at += IS_ERROR_RARE
    while at < end:
        found = <const uint8_t*> memchr(text + at, 0x45, end - at)
        if found is NULL:
            return False
        at = found - text + 1
        value = at - 1 - IS_ERROR_RARE + IS_ERROR_SIZE
        if value >= end or memcmp(text + value - IS_ERROR_SIZE, <const char*> b'"isError"', IS_ERROR_SIZE) != 0:
            continue
        value = skip_space(text, value, end)
        if value >= end or text[value] != 0x3A:
            continue
        value = skip_space(text, value + 1, end)
        if value + 4 <= end and memcmp(text + value, <const char*> b"true", 4) == 0:
            return True
    return False


cdef bint is_tool_error(Message reply) noexcept:
    """Return whether a result of ``tools/call`` says, at its top level, that the tool itself has failed."""
    cdef Range part = reply.members[<int> RESULT_MEMBER]
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(reply.data)
    cdef Py_ssize_t value
    if part.start < 0 or text[part.start] != 0x7B:
        return False
    if part.end - part.start <= LONG_RESULT:
        if not has_true(text, part.start, part.end):
            return False
    elif not has_true(text, part.start, part.start + SEARCHED) and not has_true(
        text, part.end - SEARCHED, part.end
    ):
        return False
    value = find_member(text, part.start, part.end, b"isError", IS_ERROR_SIZE - 2)
    return value >= 0 and part.end - value > 4 and memcmp(text + value, <const char*> b"true", 4) == 0


def says_tool_error(Message reply not None):
    return is_tool_error(reply)
