"""Parses requests from received bytes: HTTP/1.1 (RFC 9112) as far as clients use it, a message's id and method."""

from libc.string cimport memchr, memcmp

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t size)

cdef extern from *:
    """
    static const char *mcp_bench_head_end(const char *text, size_t size) {
        const char *at = text, *end = text + size;
        while (end - at >= 4 && (at = memchr(at, '\\r', (size_t)(end - at) - 3)) != NULL) {
            if (memcmp(at, "\\r\\n\\r\\n", 4) == 0) return at + 4;
            at++;
        }
        return NULL;
    }
    """
    const char* head_end "mcp_bench_head_end"(const char* text, size_t size) nogil

cdef enum:
    MAX_HEAD = 16384
    MAX_BODY = 67108864

cdef enum Verdict:
    BROKEN = -1
    UNFINISHED
    ANSWERED

cdef struct Text:
    const char* at
    size_t size

cdef struct Request:
    Text verb
    Text path
    Text body
    bint last


cdef inline bint same(Text one, const char* other, size_t size) noexcept nogil:
    return one.size == size and memcmp(one.at, other, size) == 0


cdef inline const char* skip_space(const char* at, const char* end) noexcept nogil:
    while at < end and (at[0] == c" " or at[0] == c"\n" or at[0] == c"\r" or at[0] == c"\t"):
        at += 1
    return at


cdef inline const char* skip_string(const char* at, const char* end) noexcept nogil:
    """Return where the string that begins here ends, or ``NULL``."""
    cdef const char* start = at
    cdef const char* slash
    while True:
        at = <const char*> memchr(at + 1, c'"', end - at - 1)
        if at is NULL:
            return NULL
        slash = at
        while slash - 1 > start and (slash - 1)[0] == c"\\":
            slash -= 1
        if (at - slash) % 2 == 0:
            return at + 1


cdef inline const char* skip_value(const char* at, const char* end) noexcept nogil:
    """Return where the JSON value that begins here ends, or ``NULL``; brackets are counted, not matched."""
    cdef long depth = 0
    if at < end and at[0] == c'"':
        return skip_string(at, end)
    while at < end:
        if at[0] == c'"':
            at = skip_string(at, end)
            if at is NULL:
                return NULL
            continue
        if at[0] == c"{" or at[0] == c"[":
            depth += 1
        elif at[0] == c"}" or at[0] == c"]":
            if depth == 0:
                return at
            depth -= 1
            if depth == 0:
                return at + 1
        elif depth == 0 and (at[0] == c"," or at[0] <= c" "):
            return at
        at += 1
    return NULL


cdef inline bint read_envelope(Text body, Text* identity, Text* method) noexcept nogil:
    """Find the id and the method of a message as they were written; return whether it is an object at all."""
    cdef const char* end = body.at + body.size
    cdef const char* at = skip_space(body.at, end)
    cdef Text key, value
    identity.at = method.at = body.at
    identity.size = method.size = 0
    if at >= end or at[0] != c"{":
        return False
    at = skip_space(at + 1, end)
    while at < end and at[0] == c'"':
        key.at = at
        at = skip_string(at, end)
        if at is NULL:
            return False
        key.size = at - key.at
        at = skip_space(at, end)
        if at >= end or at[0] != c":":
            return False
        value.at = skip_space(at + 1, end)
        at = skip_value(value.at, end)
        if at is NULL or at == value.at:
            return False
        value.size = at - value.at
        if same(key, '"id"', 4):
            identity[0] = value
        elif same(key, '"method"', 8):
            method[0] = value
        if identity.size and method.size:
            return True
        at = skip_space(at, end)
        if at < end and at[0] == c",":
            at = skip_space(at + 1, end)
        elif at < end and at[0] == c"}":
            return True
    return at < end and at[0] == c"}"


cdef inline Verdict read_request(const char* at, size_t size, Request* request, size_t* needed) noexcept nogil:
    """Parse the first request; ``needed`` is its size once that is known, else 0."""
    cdef const char* end = head_end(at, size)
    cdef const char* line
    cdef const char* after
    cdef size_t length = 0
    cdef int digits = 0
    needed[0] = 0
    if end is NULL:
        return BROKEN if size > MAX_HEAD else UNFINISHED
    line = <const char*> memchr(at, c"\n", end - at) + 1
    after = <const char*> memchr(at, c" ", line - at)
    if after is NULL or after == at:
        return BROKEN
    request.verb.at, request.verb.size = at, after - at
    request.path.at = after + 1
    after = <const char*> memchr(request.path.at, c" ", line - request.path.at)
    if after is NULL or line - after < 10 or memcmp(after, " HTTP/1.", 8) != 0:
        return BROKEN
    request.path.size = after - request.path.at
    request.last = after[8] == c"0"
    while line < end - 2:
        after = <const char*> memchr(line, c"\n", end - line) + 1
        if after - line > 15 and strncasecmp(line, "content-length:", 15) == 0:
            line = skip_space(line + 15, after)
            length = digits = 0
            while c"0" <= line[0] <= c"9" and digits < 10:
                length = length * 10 + (line[0] - c"0")
                digits += 1
                line += 1
            if digits == 0 or skip_space(line, after) != after or length > MAX_BODY:
                return BROKEN
        elif after - line > 17 and strncasecmp(line, "transfer-encoding:", 18) == 0:
            return BROKEN
        elif after - line > 16 and strncasecmp(line, "connection: close", 17) == 0:
            request.last = True
        line = after
    needed[0] = (end - at) + length
    request.body.at, request.body.size = end, length
    return ANSWERED if size >= needed[0] else UNFINISHED
