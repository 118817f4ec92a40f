"""Looks into the text of a ``tools/call`` and of its response, for what must not be passed on as it is."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.json_text cimport Fault, Range, skip_brackets, skip_key, skip_scalar, skip_space
from mcp_manager._core.jsonrpc cimport Message
from mcp_manager._core.member_names cimport PARAMS, RESULT_MEMBER

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* first, const char* second, size_t size)

cdef enum:
    MAX_DEPTH = 512
    MAX_MEMBERS = 64

cdef bytes HEAD = b'{"jsonrpc":"2.0","id":'
cdef bytes COMPLETE = b',"result":{"resultType":"complete",'
cdef bytes RESULT_HEAD = b',"result":{"resultType":"complete","_meta":{'


cdef bint read_params(Message message, CallParams* found) noexcept:
    """Find name and ``_meta`` in the params of a call; return ``False`` if the call is not a plain one."""
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(message.data)
    cdef Range params = message.members[<int> PARAMS]
    cdef Range key
    cdef Fault fault
    cdef bint escaped = False
    cdef Py_ssize_t value, end, before
    cdef Py_ssize_t size
    cdef int count = 0
    found.name.start = found.meta.start = found.meta_member.start = -1
    found.name.end = found.meta.end = found.meta_member.end = -1
    if params.start < 0 or text[params.start] != 0x7B:
        return False
    # Where the comma before the current member is; -1 for the first one.
    before = -1
    value = skip_space(text, params.start + 1, params.end)
    while value < params.end and text[value] == 0x22:
        value = skip_key(text, value, params.end, &key, &escaped, &fault)
        count += 1
        if value < 0 or escaped or count > MAX_MEMBERS:
            return False
        if text[value] == 0x7B or text[value] == 0x5B:
            end = skip_brackets(text, value, params.end, MAX_DEPTH, &fault)
        else:
            end = skip_scalar(text, value, params.end, &fault)
        if end < 0:
            return False
        size = key.end - key.start
        if size == 4 and strncasecmp(<const char*> text + key.start, b"name", 4) == 0:
            if memcmp(text + key.start, <const char*> b"name", 4) != 0:
                # Some servers take it for the same name.
                return False
            if found.name.start >= 0 or text[value] != 0x22 or end - value < 3:
                return False
            if memchr(text + value, 0x5C, end - value) is not NULL:
                return False
            found.name.start = value + 1
            found.name.end = end - 1
        elif size == 5 and memcmp(text + key.start, <const char*> b"_meta", 5) == 0:
            if found.meta.start >= 0 or text[value] != 0x7B or is_unusual_meta(text, value, end):
                return False
            found.meta.start = value
            found.meta.end = end
            found.meta_member.start = key.start - 1 if before < 0 else before
            found.meta_member.end = end
        elif size == 4 and memcmp(text + key.start, <const char*> b"task", 4) == 0:
            # The response has the id of the task, which the endpoint changes.
            return False
        elif size == 12 and memcmp(text + key.start, <const char*> b"requestState", 12) == 0:
            return False
        elif size == 14 and memcmp(text + key.start, <const char*> b"inputResponses", 14) == 0:
            return False
        value = skip_space(text, end, params.end)
        if value < params.end and text[value] == 0x2C:
            if found.meta.end == end and before < 0:
                # The comma goes with the first member.
                found.meta_member.end = value + 1
            before = value
            value = skip_space(text, value + 1, params.end)
    return found.name.start >= 0


cdef bint is_unusual_meta(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Return whether ``_meta`` has a progress token, a log level, or escapes, which may hide them."""
    cdef const uint8_t* quote
    if memchr(text + at, 0x5C, end - at) is not NULL:
        return True
    while at < end:
        quote = <const uint8_t*> memchr(text + at, 0x22, end - at)
        if quote is NULL:
            return False
        at = quote - text + 1
        if end - at >= 14 and memcmp(text + at, <const char*> b'progressToken"', 14) == 0:
            return True
        if end - at >= 33 and memcmp(text + at, <const char*> b'io.modelcontextprotocol/logLevel"', 33) == 0:
            return True
    return False


cdef int mentioned(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Return which names of members that may have to be adapted are in a text."""
    cdef const uint8_t* quote
    cdef int found = 0
    while at < end:
        quote = <const uint8_t*> memchr(text + at, 0x22, end - at)
        if quote is NULL:
            break
        at = quote - text + 1
        if end - at < 6:
            break
        if text[at] == 0x72:
            if end - at >= 8 and memcmp(text + at, <const char*> b"resource", 8) == 0:
                found |= URIS
            elif end - at >= 11 and memcmp(text + at, <const char*> b'resultType"', 11) == 0:
                found |= TYPE
        elif text[at] == 0x63:
            if end - at >= 9 and memcmp(text + at, <const char*> b'contents"', 9) == 0:
                found |= URIS
        elif text[at] == 0x74:
            if end - at >= 7 and memcmp(text + at, <const char*> b'taskId"', 7) == 0:
                found |= TASK
        elif text[at] == 0x5F and memcmp(text + at, <const char*> b'_meta"', 6) == 0:
            found |= META
    return found


cdef bytes with_members(Message reply, bytes id_raw, bytes server_info):
    """Return a response whose result also says that it is complete, and which server made it (2026-07-28, basic)."""
    cdef Range part = reply.members[<int> RESULT_MEMBER]
    cdef const char* text = PyBytes_AS_STRING(reply.data)
    # After the opening brace
    cdef Py_ssize_t start = skip_space(<const uint8_t*> text, part.start + 1, part.end)
    cdef bint is_empty = text[start] == 0x7D
    cdef Py_ssize_t size = PyBytes_GET_SIZE(HEAD) + PyBytes_GET_SIZE(id_raw) + PyBytes_GET_SIZE(RESULT_HEAD)
    cdef bytes made
    cdef char* at
    size += PyBytes_GET_SIZE(server_info) + 1 + (0 if is_empty else 1) + (part.end - start) + 1
    made = PyBytes_FromStringAndSize(NULL, size)
    at = put(put(put(put(PyBytes_AS_STRING(made), HEAD), id_raw), RESULT_HEAD), server_info)
    at[0] = 0x7D
    at += 1
    if not is_empty:
        at[0] = 0x2C
        at += 1
    memcpy(at, text + start, part.end - start)
    at[part.end - start] = 0x7D
    return made


cdef bint is_evidently_complete(Message reply) noexcept:
    """Return whether a result has ``resultType`` as its first or last member, as most of 2026-07-28 do."""
    cdef Range part = reply.members[<int> RESULT_MEMBER]
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(reply.data)
    if part.end - part.start < 25:
        return False
    if memcmp(text + part.start, <const char*> b'{"resultType":"complete"', 24) == 0:
        return True
    # Before it there is a comma: it is no part of a nested object.
    return memcmp(text + part.end - 25, <const char*> b',"resultType":"complete"}', 25) == 0


cdef bytes opening_of(Message reply, bytes id_raw, Py_ssize_t* goes_on):
    """Return the beginning of a response that says that it is complete; ``None`` if its text cannot follow as it is."""
    cdef Range part = reply.members[<int> RESULT_MEMBER]
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(reply.data)
    if part.start < 0 or text[part.start] != 0x7B or part.end + 1 != reply.whole.end or text[part.end] != 0x7D:
        return None
    goes_on[0] = skip_space(text, part.start + 1, part.end)
    if text[goes_on[0]] == 0x7D:
        return None
    return b"".join((HEAD, id_raw, COMPLETE))


cdef inline char* put(char* at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)
