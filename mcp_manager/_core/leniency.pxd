"""Accepts members of received messages that are null and should be absent, as many serializers write them."""

from libc.stdint cimport uint8_t

from mcp_manager._core.json_text cimport Range
from mcp_manager._core.member_names cimport ERROR_MEMBER, ID, METHOD, PARAMS, RESULT_MEMBER

cdef enum Overlooked:
    NOTHING = 0
    NULL_MEMBER = 1
    METHOD_BESIDE = 2


cdef inline bint is_null(const Range* members, int member, const uint8_t* text) noexcept nogil:
    return members[member].start >= 0 and text[members[member].start] == 0x6E


cdef inline Overlooked overlook(Range* members, const uint8_t* text) noexcept nogil:
    """Treat such members as absent, and return what was found; the values of all members must be valid JSON."""
    cdef Overlooked found = NOTHING
    cdef bint has_method = members[<int> METHOD].start >= 0
    cdef bint has_result = members[<int> RESULT_MEMBER].start >= 0
    cdef bint has_error = members[<int> ERROR_MEMBER].start >= 0
    if not has_method and not (has_result and has_error):
        # Nearly every reply.
        return NOTHING
    if has_method and is_null(members, METHOD, text):
        members[<int> METHOD].start = -1
        has_method = False
        found = NULL_MEMBER
    if has_error and (has_result or has_method) and is_null(members, ERROR_MEMBER, text):
        members[<int> ERROR_MEMBER].start = -1
        has_error = False
        found = NULL_MEMBER
    if has_result and (has_error or has_method) and is_null(members, RESULT_MEMBER, text):
        members[<int> RESULT_MEMBER].start = -1
        has_result = False
        found = NULL_MEMBER
    if has_method and (has_result or has_error) and members[<int> ID].start >= 0:
        # A request has neither of them: this is a reply that repeats the method of its request.
        members[<int> METHOD].start = -1
        return METHOD_BESIDE
    if has_method and is_null(members, ID, text):
        members[<int> ID].start = -1
        found = NULL_MEMBER
    if has_method and is_null(members, PARAMS, text):
        members[<int> PARAMS].start = -1
        found = NULL_MEMBER
    return found
