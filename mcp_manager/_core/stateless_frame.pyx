"""Frames ordinary requests of the stateless revisions, and recognizes their complete results (2026-07-28, basic)."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy

from mcp_manager._core.http_message cimport Exchange, Request, make_exchange
from mcp_manager._core.json_text cimport Fault, Range, skip_key, skip_space, skip_string, skip_value
from mcp_manager._core.jsonrpc cimport Message
from mcp_manager._core.member_names cimport METHOD, PARAMS, RESULT_MEMBER

cdef enum:
    MAX_DEPTH = 128
    NAME_FIELD_SIZE = 10
    FIRST_SIZE = 24
    LAST_SIZE = 24


@cython.final
cdef class StatelessFrame:
    def __cinit__(self, bytes opening not None, dict methods not None, dict mirrored not None):
        # A copy: what was checked here must not change.
        self.methods = dict(methods)
        for method, (lines, member) in methods.items():
            if type(method) is not bytes or type(lines) is not bytes or type(member) is not bytes:
                raise TypeError(f"methods must be bytes, with pairs of bytes, not {methods!r:.80}")
            self.methods[method] = (lines, member)
        self.mirrored = mirrored
        self.open_with(opening)

    def open_with(self, bytes opening not None):
        self.opening = opening + b","

    def exchange(self, request, int64_t request_id, int64_t deadline_ns):
        return self.frame(request, request_id, deadline_ns)

    cdef Exchange frame(self, request, int64_t request_id, int64_t deadline_ns):
        cdef bytes method, params, lines, member
        cdef bytes data = None
        cdef bytes opening = self.opening
        cdef bytes fields = None
        cdef Exchange exchange
        cdef const uint8_t* text
        cdef Py_ssize_t at, end
        cdef Range name
        if type(request) is Request:
            method = (<Request> request).method
            params = (<Request> request).params
            if params is None:
                return None
            if (<Request> request).meta is not None:
                # In place of the brackets that end the opening, and of the comma that follows it.
                opening = b'%b,%b},' % (opening[:PyBytes_GET_SIZE(opening) - 2], (<Request> request).meta)
            fields = (<Request> request).fields
            data = params
            at = 0
            end = PyBytes_GET_SIZE(data)
        else:
            name = (<Message?> request).members[<int> METHOD]
            if name.start < 0 or (<Message> request).members[<int> PARAMS].start < 0:
                return None
            method = (<Message> request).cut(name)
            data = (<Message> request).data
            at = (<Message> request).members[<int> PARAMS].start
            end = (<Message> request).members[<int> PARAMS].end
        known = self.methods.get(method)
        if known is None:
            return None
        lines, member = <tuple> known
        text = <const uint8_t*> PyBytes_AS_STRING(data)
        at = skip_space(text, at, end)
        # find_name() refuses an empty object.
        if at >= end or text[at] != 0x7B or is_unusual(text, at, end):
            return None
        at = skip_space(text, at + 1, end)
        if not find_name(text, at, end, member, &name) or not is_plain(text, name):
            return None
        if self.mirrored:
            tool = PyUnicode_DecodeASCII(<const char*> text + name.start, name.end - name.start, NULL)
            if tool in self.mirrored:
                return None
        exchange = assembled(
            method, lines, opening, <const char*> text, at, end, name, request_id, deadline_ns
        )
        if fields is not None:
            exchange.fields += fields
        return exchange


cdef Exchange assembled(
    bytes method, bytes lines, bytes opening, const char* text, Py_ssize_t at, Py_ssize_t end, Range name,
    int64_t request_id, int64_t deadline_ns,
):
    """Build the exchange of a request whose members begin at ``at``, and whose name is at ``name``."""
    cdef Exchange exchange = make_exchange(
        PyBytes_AS_STRING(method), PyBytes_GET_SIZE(method), PyBytes_AS_STRING(opening), PyBytes_GET_SIZE(opening),
        text + at, end - at, request_id, deadline_ns,
    )
    cdef Py_ssize_t lines_size = PyBytes_GET_SIZE(lines)
    cdef Py_ssize_t name_size = name.end - name.start
    cdef bytes fields = PyBytes_FromStringAndSize(NULL, lines_size + NAME_FIELD_SIZE + name_size + 2)
    cdef char* to = PyBytes_AS_STRING(fields)
    memcpy(to, PyBytes_AS_STRING(lines), lines_size)
    memcpy(to + lines_size, <const char*> b"Mcp-Name: ", NAME_FIELD_SIZE)
    to += lines_size + NAME_FIELD_SIZE
    memcpy(to, text + name.start, name_size)
    memcpy(to + name_size, <const char*> b"\r\n", 2)
    exchange.fields = fields
    return exchange


cdef bint find_name(const uint8_t* text, Py_ssize_t at, Py_ssize_t end, bytes member, Range* name) noexcept:
    """Find the string that is an object's last member of this name; ``at`` is behind the object's opening bracket.

    Return ``False`` if the text is not an object, has no such member, or has one that is not a string or has escapes.
    """
    cdef Range key
    cdef Fault fault
    cdef bint escaped = False
    cdef bint found = False
    cdef bint wanted
    cdef Py_ssize_t value
    while True:
        value = skip_key(text, at, end, &key, &escaped, &fault)
        if value < 0:
            return False
        wanted = key.end - key.start == PyBytes_GET_SIZE(member) and (
            memcmp(text + key.start, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member)) == 0
        )
        if wanted:
            if text[value] != 0x22:
                return False
            found = True
            escaped = False
            at = skip_string(text, value, end, &escaped, &fault)
            if at < 0 or escaped:
                return False
            name.start = value + 1
            name.end = at - 1
        else:
            at = skip_value(text, value, end, MAX_DEPTH, &fault)
            if at < 0:
                return False
        at = skip_space(text, at, end)
        if at >= end:
            return False
        if text[at] == 0x7D:
            return found and skip_space(text, at + 1, end) == end
        if text[at] != 0x2C:
            return False
        at = skip_space(text, at + 1, end)


cdef bint is_plain(const uint8_t* text, Range name) noexcept:
    """Return whether a name is a valid header value without encoding (2026-07-28, streamable HTTP, value encoding)."""
    cdef Py_ssize_t at
    if name.start == name.end or text[name.start] == 0x20 or text[name.end - 1] == 0x20:
        return False
    if text[name.start] == 0x3D and text[name.end - 1] == 0x3D:
        # It could be taken for an encoded value.
        return False
    for at in range(name.start, name.end):
        if text[at] < 0x20 or text[at] > 0x7E:
            return False
    return True


cdef bint is_unusual(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Return whether params may have a ``_meta`` of their own, perhaps written with escapes."""
    return holds(text, at, end, b'"_meta"', 7, 1) or holds(text, at, end, b"\\u", 2, 0)


cdef bint holds(
    const uint8_t* text, Py_ssize_t at, Py_ssize_t end, const char* wanted, Py_ssize_t size, Py_ssize_t rare
) noexcept:
    """Return whether a text contains another; ``rare`` is the position of its rarest byte, which is searched for."""
    cdef const uint8_t* found
    cdef Py_ssize_t start
    at += rare
    while at < end:
        found = <const uint8_t*> memchr(text + at, wanted[rare], end - at)
        if found is NULL:
            return False
        at = found - text + 1
        start = at - 1 - rare
        if start + size <= end and memcmp(text + start, wanted, size) == 0:
            return True
    return False


cdef bint is_complete(Message reply) noexcept:
    """Return whether a result evidently is complete, or gives no ``resultType``; ``False`` means undecided."""
    cdef Range part = reply.members[<int> RESULT_MEMBER]
    cdef const uint8_t* text = <const uint8_t*> PyBytes_AS_STRING(reply.data)
    cdef Py_ssize_t size = part.end - part.start
    if part.start < 0 or size < 1 or text[part.start] != 0x7B:
        return False
    if size >= LAST_SIZE:
        if memcmp(text + part.start, <const char*> b'{"resultType":"complete"', FIRST_SIZE) == 0:
            return True
        if memcmp(text + part.end - LAST_SIZE, <const char*> b'"resultType":"complete"}', LAST_SIZE) == 0:
            return True
    return not holds(text, part.start, part.end, b'"resultType"', 12, 7) and not holds(
        text, part.start, part.end, b"\\u", 2, 0
    )


def says_complete(Message reply not None):
    return is_complete(reply)
