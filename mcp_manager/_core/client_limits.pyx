"""What clients of the gateway use of their limits, and the audit lines of calls that were answered."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strncmp

from mcp_manager._core.allowance cimport RateLimiter, rate_take

from datetime import UTC as _UTC, datetime

cdef enum:
    # The time at the beginning of a line, and the numbers at its end; both are shorter.
    LONGEST_TIME = 64
    LONGEST_NUMBERS = 128

cdef bytes IS_ERROR = b'"isError"'
cdef int64_t NS_PER_S = 1_000_000_000
# The second of the last line, as text.
cdef int64_t known_s = -1
cdef bytes known_text = b""


@cython.final
cdef class Counter:
    def __cinit__(self, config, Py_ssize_t workers):
        self.config = config
        self.limiter = None
        if config.rate:
            self.limiter = RateLimiter(rate=max(config.rate / workers, 1e-9), burst=-(-config.burst // workers))
        self.most_running = -(-config.max_concurrent // workers)
        self.most_streams = -(-config.max_streams // workers)


cdef class UseCounts:
    def __cinit__(self, *args):
        self.epoch = object()

    cdef tuple admit(self, tuple counters, Py_ssize_t most_running, int64_t now_ns):
        """Count a request, and return ``None``; or return the counter that refuses it, and for how many ns."""
        cdef tuple refusal
        if 0 < most_running <= self.running:
            return None, 0
        if counters:
            refusal = admit_in(counters, now_ns)
            if refusal is not None:
                return refusal
        self.running += 1
        return None

    cdef int leave(self, tuple counters) except -1:
        cdef Counter counter
        self.running -= 1
        for counter in counters:
            counter.running -= 1
        return 0

    def begin_request(self, tuple counters not None, Py_ssize_t most_running, int64_t now_ns):
        return self.admit(counters, most_running, now_ns)

    def end_request(self, tuple counters not None):
        self.leave(counters)


@cython.final
cdef class RouteUse:
    def __cinit__(
        self, sender, UseCounts account not None, tuple counters not None, Py_ssize_t most_running, limits_epoch, audit,
        bytes line,
    ):
        self.sender = sender
        self.account = account
        self.counters = counters
        self.most_running = most_running
        self.limits_epoch = limits_epoch
        self.account_epoch = account.epoch
        self.audit = audit
        self.line = line

    cdef bint holds(self, object limits_epoch, object audit) noexcept:
        return (
            self.limits_epoch is limits_epoch and self.account_epoch is self.account.epoch and self.audit is audit
        )


cdef tuple admit_in(tuple counters, int64_t now_ns):
    """Count a request in all of these, and return ``None``; or return the one that refuses it, and for how many ns."""
    cdef Counter counter
    cdef int64_t wait_ns
    for counter in counters:
        if 0 < counter.most_running <= counter.running:
            return counter, 0
    for counter in counters:
        if counter.limiter is not None:
            wait_ns = rate_take(&counter.limiter.arrival_ns, &counter.limiter.policy, now_ns)
            if wait_ns > 0:
                return counter, wait_ns
    for counter in counters:
        counter.running += 1
    return None


def take(tuple counters not None, int64_t now_ns):
    return admit_in(counters, now_ns)


cdef bytes audit_line(int64_t at_ns, bytes line, int64_t duration_ns, Py_ssize_t size_in, Py_ssize_t size_out):
    """Return a line of the audit log, from what it says between its time and its numbers."""
    global known_s, known_text
    cdef char[LONGEST_TIME] time
    cdef char[LONGEST_NUMBERS] numbers
    cdef int time_size, numbers_size
    cdef Py_ssize_t size = PyBytes_GET_SIZE(line)
    cdef int64_t duration_us = duration_ns // 1000
    cdef bytes made
    cdef char* text
    if at_ns // NS_PER_S != known_s:
        text_of_second = datetime.fromtimestamp(at_ns // NS_PER_S, _UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        # Together: another thread may serve as well.
        known_s = at_ns // NS_PER_S
        known_text = text_of_second
    time_size = snprintf(
        time, LONGEST_TIME, b'{"time":"%.32s.%03dZ"', PyBytes_AS_STRING(known_text),
        <int> (at_ns // 1_000_000 % 1000),
    )
    numbers_size = snprintf(
        numbers, LONGEST_NUMBERS, b',"duration_ms":%lld.%03d,"bytes_in":%lld,"bytes_out":%lld}',
        <long long> (duration_us // 1000), <int> (duration_us % 1000), <long long> size_in, <long long> size_out,
    )
    made = PyBytes_FromStringAndSize(NULL, time_size + size + numbers_size)
    text = PyBytes_AS_STRING(made)
    memcpy(text, time, time_size)
    memcpy(text + time_size, PyBytes_AS_STRING(line), size)
    memcpy(text + time_size + size, numbers, numbers_size)
    return made


cdef bint may_have_failed(bytes reply) except -1:
    """Return whether a reply may be an error, or say that the tool failed; otherwise it does not."""
    cdef const char* text = PyBytes_AS_STRING(reply)
    cdef Py_ssize_t at = reply.find(IS_ERROR)
    # Bytes end with a NUL, which is none of these.
    while at >= 0:
        at = after_space(text, at + PyBytes_GET_SIZE(IS_ERROR))
        if text[at] != 0x3A or strncmp(text + after_space(text, at + 1), b"false", 5) != 0:
            return True
        at = reply.find(IS_ERROR, at)
    return b'"error"' in reply


cdef Py_ssize_t after_space(const char* text, Py_ssize_t at) noexcept:
    while text[at] == 0x20 or text[at] == 0x09 or text[at] == 0x0A or text[at] == 0x0D:
        at += 1
    return at


def answered_line(
    int64_t at_ns, bytes line not None, int64_t duration_ns, Py_ssize_t size_in, Py_ssize_t size_out
):
    return audit_line(at_ns, line, duration_ns, size_in, size_out)
