"""Estimates what decoding JSON text costs before it is decoded: peers choose the text, and dense text costs most."""

from libc.stdint cimport int64_t, uint8_t

cdef extern from "json_blocks.h" nogil:
    int json_plain_prefix(const uint8_t* text) noexcept

cdef enum:
    # An empty array takes 72 bytes, and as much time as two numbers.
    CONTAINER = 2
    # Longer integers are not machine words: their cost grows with the square of their digits.
    WORD_DIGITS = 18
    DIGITS_A_VALUE = 64
    ESCAPES_A_VALUE = 16
    SQUARED_DIGITS_A_VALUE = 8192
    # Larger powers of ten are computed with big numbers, digit by digit.
    SMALL_EXPONENT = 40
    MAX_EXPONENT = 400

cdef struct Weight:
    int64_t values
    int64_t text
    int64_t most_spare


cdef inline bint is_digit(uint8_t byte) noexcept nogil:
    return 0x30 <= byte <= 0x39


cdef inline int width_of_letter(uint8_t lead) noexcept nogil:
    if lead >= 0xF0:
        return 4
    return 2 if lead >= 0xC4 else 1


cdef inline int width_of_escape(const uint8_t* text, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return how many bytes an escaped character takes if its string has no wider one."""
    if at + 4 > end or (text[at + 1] != 0x75):
        return 1
    if text[at + 2] == 0x30 and text[at + 3] == 0x30:
        return 1
    return 4 if (text[at + 2] | 0x20) == 0x64 and (text[at + 3] | 0x20) >= 0x38 else 2


cdef inline Py_ssize_t weigh_text(
    const uint8_t* text, Py_ssize_t at, Py_ssize_t end, Weight* weight
) noexcept nogil:
    """Step over a string; ``at`` is behind its opening quote. Every character is as wide as the widest one.

    During decoding the string has room for as many such characters as it has bytes in UTF-8; if it has escapes, these
    bytes are copied first.
    """
    cdef int64_t characters = 0
    cdef int64_t size = 0
    cdef int64_t spare
    cdef Py_ssize_t start
    cdef int64_t escapes = 0
    cdef int width = 1
    cdef int plain
    while at < end:
        if at + 8 <= end:
            plain = json_plain_prefix(text + at)
            at += plain
            characters += plain
            size += plain
            if plain == 8:
                continue
        if text[at] == 0x22:
            at += 1
            break
        if text[at] == 0x5C:
            # Escapes and non-ASCII letters come in runs: neither is read eight bytes at a time.
            while at < end and text[at] == 0x5C:
                width = max(width, width_of_escape(text, at, end))
                if at + 1 < end and text[at + 1] == 0x75:
                    at += 6
                    size += 3
                else:
                    at += 2
                    size += 1
                escapes += 1
        elif text[at] >= 0x80:
            start = at
            while at < end and text[at] >= 0x80:
                width = max(width, width_of_letter(text[at]))
                characters += (text[at] & 0xC0) != 0x80
                at += 1
            size += at - start
        else:
            at += 1
            characters += 1
            size += 1
    characters += escapes
    weight.values += escapes // ESCAPES_A_VALUE
    weight.values += 1
    weight.text += characters * width
    spare = (size - characters) * width
    if escapes > 0:
        spare += size
    if spare > weight.most_spare:
        weight.most_spare = spare
    return at if at < end else end


cdef inline Py_ssize_t weigh_number(
    const uint8_t* text, Py_ssize_t at, Py_ssize_t end, Weight* weight
) noexcept nogil:
    cdef int64_t digits = 0
    cdef int64_t exponent = 0
    cdef bint is_whole = True
    if text[at] == 0x2D:
        at += 1
    while at < end and (is_digit(text[at]) or text[at] == 0x2E):
        if text[at] == 0x2E:
            is_whole = False
        digits += 1
        at += 1
    if at < end and (text[at] | 0x20) == 0x65:
        is_whole = False
        at += 1
        if at < end and (text[at] == 0x2B or text[at] == 0x2D):
            at += 1
        while at < end and is_digit(text[at]):
            if exponent < MAX_EXPONENT:
                exponent = exponent * 10 + (text[at] - 0x30)
            at += 1
    weight.values += 1
    if digits > WORD_DIGITS:
        weight.values += digits // DIGITS_A_VALUE
        if is_whole:
            weight.values += digits * digits // SQUARED_DIGITS_A_VALUE
    if exponent > SMALL_EXPONENT:
        weight.values += min(exponent, <int64_t> MAX_EXPONENT)
    return at


def weigh(const uint8_t[::1] data not None, int64_t limit):
    cdef Py_ssize_t end = data.shape[0]
    cdef Py_ssize_t at = 0
    cdef const uint8_t* text
    cdef uint8_t byte
    cdef Weight weight
    weight.values = 0
    weight.text = 0
    weight.most_spare = 0
    if end == 0:
        return 0, 0
    text = &data[0]
    with nogil:
        while at < end and weight.values <= limit:
            byte = text[at]
            if byte == 0x22:
                at = weigh_text(text, at + 1, end, &weight)
            elif byte == 0x7B or byte == 0x5B:
                weight.values += CONTAINER
                at += 1
            elif byte == 0x2D or is_digit(byte):
                at = weigh_number(text, at, end, &weight)
            elif 0x61 <= (byte | 0x20) <= 0x7A:
                weight.values += 1
                at += 1
                while at < end and 0x61 <= (text[at] | 0x20) <= 0x7A:
                    at += 1
            else:
                at += 1
    return weight.values, weight.text + weight.most_spare
