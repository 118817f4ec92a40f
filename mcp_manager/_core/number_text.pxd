"""Writes numbers as ``prometheus_client`` does, without the interpreter: whole ones, and nanoseconds as seconds."""

from libc.stdint cimport uint64_t

cdef enum:
    # What each of the functions below writes at most.
    NUMBER_ROOM = 32
    # Sums below this, about 11 days, have at most 15 digits: all of them are in the shortest text that is read back as
    # the same number.
    LONGEST_NS = 1000000000000000


cdef inline char* digits_of(char* to, uint64_t number, int least) noexcept nogil:
    """Write a number with at least so many digits; return where the text ends."""
    cdef char[20] reversed_digits
    cdef int count = 0
    while number or count < least:
        reversed_digits[count] = <char> (0x30 + number % 10)
        number //= 10
        count += 1
    while count:
        count -= 1
        to[0] = reversed_digits[count]
        to += 1
    return to


cdef inline char* without_zeros(const char* start, char* end) noexcept nogil:
    """Return where a text ends without zeros at its end."""
    while end > start and (end - 1)[0] == 0x30:
        end -= 1
    return end


cdef inline char* with_exponent(char* to, uint64_t number) noexcept nogil:
    """Write a number as ``d.ddd``, without zeros at its end; return where the text ends."""
    cdef char* end = digits_of(to + 1, number, 1)
    to[0] = to[1]
    to[1] = 0x2e
    end = without_zeros(to + 1, end)
    return to + 1 if end == to + 2 else end


cdef inline char* put_whole(char* to, uint64_t number) noexcept nogil:
    """Write a whole number of up to 15 digits; return where the text ends."""
    cdef char* end
    cdef int digits = 0
    if number < 1000000:
        end = digits_of(to, number, 1)
        end[0] = 0x2e
        end[1] = 0x30
        return end + 2
    end = with_exponent(to, number)
    while number >= 10:
        number //= 10
        digits += 1
    end[0] = 0x65
    end[1] = 0x2b
    return digits_of(end + 2, digits, 2)


cdef inline char* put_seconds(char* to, uint64_t time_ns) noexcept nogil:
    """Write nanoseconds as seconds, at most as many as ``LONGEST_NS``; return where the text ends."""
    cdef char* end
    cdef char* point
    cdef uint64_t number = time_ns
    cdef int digits = 0
    if time_ns == 0 or time_ns >= 100000:
        point = digits_of(to, time_ns // 1000000000, 1)
        point[0] = 0x2e
        end = without_zeros(point + 2, digits_of(point + 1, time_ns % 1000000000, 9))
        return end
    # Below 0.0001, with an exponent.
    end = with_exponent(to, time_ns)
    while number >= 10:
        number //= 10
        digits += 1
    end[0] = 0x65
    end[1] = 0x2d
    return digits_of(end + 2, 9 - digits, 2)
