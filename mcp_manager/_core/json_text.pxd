"""Steps over JSON text (RFC 8259) byte by byte and without recursion: validates or only delimits it, builds nothing."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

cdef extern from "json_blocks.h" nogil:
    enum: JSON_BRACKET
    enum: JSON_QUOTE
    enum: JSON_FOREIGN
    enum: JSON_OPENS
    enum: JSON_OBJECT
    const uint8_t[128] json_outside
    int json_plain_prefix(const uint8_t* text) noexcept

cdef enum:
    # Nesting is stored as one bit per level: object or array.
    DEPTH_LIMIT = 4096
    DEPTH_BYTES = 512

cdef struct Range:
    Py_ssize_t start
    Py_ssize_t end

cdef struct Fault:
    const char* reason
    Py_ssize_t offset


cdef inline Py_ssize_t fail(Fault* fault, const char* reason, Py_ssize_t offset) noexcept nogil:
    fault.reason = reason
    fault.offset = offset
    return -1


cdef inline Py_ssize_t skip_space(const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    while at < end and (data[at] == 0x20 or data[at] == 0x0A or data[at] == 0x0D or data[at] == 0x09):
        at += 1
    return at


cdef inline bint is_continuation(uint8_t byte) noexcept nogil:
    return (byte & 0xC0) == 0x80


cdef inline Py_ssize_t skip_multibyte(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
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


cdef inline bint is_escaped(uint8_t byte) noexcept nogil:
    """Return whether a byte behind a backslash is one of ``"/\\bfnrt``; each mask has a bit for each of 64 bytes."""
    if byte < 0x40:
        return (<uint64_t> 0x0000800400000000 >> byte) & 1
    return byte < 0x80 and (<uint64_t> 0x0014404410000000 >> (byte & 0x3F)) & 1


cdef inline Py_ssize_t skip_string(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, bint* escaped, Fault* fault
) noexcept nogil:
    """Step over a string; ``at`` is its opening quote."""
    cdef Py_ssize_t start = at
    cdef uint8_t byte
    cdef int digit, plain
    at += 1
    while True:
        while at + 8 <= end:
            plain = json_plain_prefix(data + at)
            at += plain
            if plain < 8:
                break
        if at >= end:
            return fail(fault, b"unterminated string", start)
        byte = data[at]
        if byte == 0x22:
            return at + 1
        if byte == 0x5C:
            escaped[0] = True
            # Escapes come in runs: return to eight bytes at a time only after the last of them.
            while at < end and data[at] == 0x5C:
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
                elif is_escaped(byte):
                    at += 2
                else:
                    return fail(fault, b"invalid escape", at)
        elif byte < 0x20:
            return fail(fault, b"control character in a string", at)
        elif byte < 0x80:
            at += 1
        else:
            # Non-ASCII letters come in words: return to eight bytes at a time only after the last of them.
            while at < end and data[at] >= 0x80:
                at = skip_multibyte(data, at, end, fault)
                if at < 0:
                    return -1


cdef inline Py_ssize_t skip_digits(const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    while at < end and 0x30 <= data[at] <= 0x39:
        at += 1
    return at


cdef inline Py_ssize_t skip_number(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
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


cdef inline Py_ssize_t skip_scalar(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
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


cdef inline Py_ssize_t skip_key(
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


cdef inline Py_ssize_t skip_value(
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


cdef inline Py_ssize_t skip_text(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
    """Step over a string without checking its escapes; ``at`` is its opening quote."""
    cdef Py_ssize_t start = at
    cdef uint8_t byte
    cdef int plain
    at += 1
    while True:
        while at + 8 <= end:
            plain = json_plain_prefix(data + at)
            at += plain
            if plain < 8:
                break
        if at >= end:
            return fail(fault, b"unterminated string", start)
        byte = data[at]
        if byte == 0x22:
            return at + 1
        if byte == 0x5C:
            at += 1
            # The escaped byte is text like any other: no control, and valid UTF-8.
            if at < end and 0x20 <= data[at] < 0x80:
                at += 1
        elif byte < 0x20:
            return fail(fault, b"control character in a string", at)
        elif byte < 0x80:
            at += 1
        else:
            while at < end and data[at] >= 0x80:
                at = skip_multibyte(data, at, end, fault)
                if at < 0:
                    return -1


cdef inline Py_ssize_t skip_brackets(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, int max_depth, Fault* fault
) noexcept nogil:
    """Step over an object or array by its brackets and strings alone, as ``json_blocks.h`` does by blocks."""
    cdef uint8_t[DEPTH_BYTES] objects
    cdef int depth = 0
    cdef uint8_t what
    cdef bint in_object
    while at < end:
        what = json_outside[data[at]] if data[at] < 0x80 else JSON_FOREIGN
        if what & JSON_FOREIGN:
            return fail(fault, b"expected a JSON value", at)
        if what & JSON_QUOTE:
            at = skip_text(data, at, end, fault)
            if at < 0:
                return -1
            continue
        if what & JSON_BRACKET:
            in_object = (what & JSON_OBJECT) != 0
            if what & JSON_OPENS:
                if depth >= max_depth:
                    return fail(fault, b"nested too deeply", at)
                if in_object:
                    objects[depth >> 3] |= <uint8_t> (1 << (depth & 7))
                else:
                    objects[depth >> 3] &= <uint8_t> ~(1 << (depth & 7))
                depth += 1
            else:
                depth -= 1
                if (objects[depth >> 3] >> (depth & 7) & 1) != in_object:
                    return fail(fault, b"expected ',' or a closing bracket", at)
                if depth == 0:
                    return at + 1
        at += 1
    return fail(fault, b"unexpected end", at)
