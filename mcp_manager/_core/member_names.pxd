"""Recognizes the member names of JSON-RPC 2.0, even if a server writes them with escapes."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

cdef enum:
    LONGEST_NAME = 7


cdef enum Member:
    OTHER = 0
    ID = 1
    METHOD = 2
    PARAMS = 3
    RESULT_MEMBER = 4
    ERROR_MEMBER = 5
    VERSION = 6
    # Members of an error object.
    CODE = 7
    MESSAGE = 8
    DATA = 9


cdef inline Member member_of(const uint8_t* name, Py_ssize_t size) noexcept nogil:
    if size == 2 and memcmp(name, b"id", 2) == 0:
        return ID
    if size == 5 and memcmp(name, b"error", 5) == 0:
        return ERROR_MEMBER
    if size == 7:
        if memcmp(name, b"jsonrpc", 7) == 0:
            return VERSION
        if memcmp(name, b"message", 7) == 0:
            return MESSAGE
    if size == 4:
        if memcmp(name, b"code", 4) == 0:
            return CODE
        if memcmp(name, b"data", 4) == 0:
            return DATA
    if size == 6:
        if memcmp(name, b"result", 6) == 0:
            return RESULT_MEMBER
        if memcmp(name, b"method", 6) == 0:
            return METHOD
        if memcmp(name, b"params", 6) == 0:
            return PARAMS
    return OTHER


cdef inline int digit_of(uint8_t byte) noexcept nogil:
    return byte - 0x30 if byte <= 0x39 else (byte | 0x20) - 0x57


cdef inline Member escaped_member_of(const uint8_t* name, Py_ssize_t size) noexcept nogil:
    """Recognize a name with valid escapes: letters may be written as ``\\u00xx``."""
    cdef uint8_t[LONGEST_NAME] plain
    cdef Py_ssize_t at = 0
    cdef int length = 0
    while at < size:
        if length == LONGEST_NAME:
            return OTHER
        if name[at] != 0x5C:
            plain[length] = name[at]
            at += 1
        elif name[at + 1] == 0x75 and name[at + 2] == 0x30 and name[at + 3] == 0x30:
            plain[length] = <uint8_t> (digit_of(name[at + 4]) * 16 + digit_of(name[at + 5]))
            at += 6
        else:
            # No other escape stands for a letter.
            return OTHER
        length += 1
    return member_of(plain, length)


cdef inline Member member_named(const uint8_t* name, Py_ssize_t size, bint escaped) noexcept nogil:
    return escaped_member_of(name, size) if escaped else member_of(name, size)
