"""A loopback server that costs less per call than any client: epoll, no GIL, replies prepared in advance."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset, strerror
from posix.unistd cimport close, read

from benchmarks.calls.request cimport (
    ANSWERED, BROKEN, MAX_HEAD, Request, Text, Verdict, head_end, read_envelope, read_request, same,
)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    ctypedef union epoll_data_t:
        void* ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int accept4(int fd, void* address, void* size, int flags)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)

cdef extern from "<sys/resource.h>" nogil:
    enum: RUSAGE_SELF
    struct timeval:
        long tv_sec
        long tv_usec
    struct rusage:
        timeval ru_utime
        timeval ru_stime
    int getrusage(int who, rusage* usage)

cdef enum:
    EVENTS = 256
    ENDPOINTS = 256
    ANSWERS = 8
    FIRST_BUFFER = 4096
    # A suffix up to this size is copied behind its head; a longer one is sent in place.
    COPIED = 8192
    # Replies to pipelined requests are gathered up to this size.
    GATHERED = 65536
    MAX_ID = 512

cdef enum Kind:
    CLIENT
    LISTENER
    CONTROL

cdef struct Answer:
    Text method
    Text head
    Text suffix
    # How many bytes of the suffix belong to the body; the rest ends the last chunk.
    size_t counted

cdef struct Endpoint:
    Text path
    bint chunked
    Text prefix
    Answer answers[ANSWERS]
    int count

cdef struct Connection:
    Kind kind
    int fd
    Connection* before
    Connection* after
    # Received but not answered yet, and the size at which the next request is complete (0 if unknown).
    char* data
    size_t size
    size_t capacity
    size_t needed
    # To be sent: bytes of this connection, then the rest of a prepared suffix.
    char* out
    size_t out_at
    size_t out_size
    size_t out_capacity
    Text tail
    bint closing
    bint blocked
    int endpoint


cdef inline Text text_of(bytes value, list kept):
    """Return where the bytes are, and keep them alive."""
    cdef Text text
    if value is None:
        raise TypeError("a reply is made of bytes, not of None")
    kept.append(value)
    text.at = PyBytes_AS_STRING(value)
    text.size = PyBytes_GET_SIZE(value)
    return text


cdef char* room(Connection* to, size_t size) noexcept nogil:
    """Return room for this many more bytes to send, or ``NULL``."""
    cdef size_t capacity = to.out_capacity if to.out_capacity else 1024
    cdef char* grown
    while capacity < to.out_size + size:
        capacity *= 2
    if capacity != to.out_capacity:
        grown = <char*> realloc(to.out, capacity)
        if grown is NULL:
            return NULL
        to.out, to.out_capacity = grown, capacity
    return to.out + to.out_size


cdef bint say(Connection* to, const char* head, size_t size) noexcept nogil:
    cdef char* at = room(to, size)
    if at is NULL:
        return False
    memcpy(at, head, size)
    to.out_size += size
    return True


cdef bint say_status(Connection* to, const char* status) noexcept nogil:
    cdef char head[128]
    cdef int size = snprintf(head, sizeof(head), b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status)
    return say(to, head, size)


cdef bint say_reply(Connection* to, Endpoint* endpoint, Text method, Text identity) noexcept nogil:
    """Assemble head, prefix, id and suffix; a long suffix stays in place."""
    cdef Answer* answer = &endpoint.answers[0]
    cdef char digits[32]
    cdef size_t size
    cdef int index, count
    cdef char* at
    for index in range(1, endpoint.count):
        if same(method, endpoint.answers[index].method.at, endpoint.answers[index].method.size):
            answer = &endpoint.answers[index]
            break
    size = endpoint.prefix.size + identity.size + answer.counted
    if endpoint.chunked:
        count = snprintf(digits, sizeof(digits), b"\r\n%zx\r\n", size)
    else:
        count = snprintf(digits, sizeof(digits), b"%zu\r\n\r\n", size)
    at = room(to, answer.head.size + count + endpoint.prefix.size + identity.size + answer.suffix.size)
    if at is NULL:
        return False
    memcpy(at, answer.head.at, answer.head.size)
    at += answer.head.size
    memcpy(at, digits, count)
    at += count
    memcpy(at, endpoint.prefix.at, endpoint.prefix.size)
    at += endpoint.prefix.size
    memcpy(at, identity.at, identity.size)
    at += identity.size
    if answer.suffix.size <= COPIED:
        memcpy(at, answer.suffix.at, answer.suffix.size)
        at += answer.suffix.size
    else:
        to.tail = answer.suffix
    to.out_size = at - to.out
    return True


# Most of it runs without the GIL, which a check for None would need. It uses no extension type but its own.
@cython.nonecheck(False)
@cython.final
cdef class Loopback:
    cdef object render
    cdef list kept
    cdef Endpoint endpoints[ENDPOINTS]
    cdef int known
    cdef int poller
    cdef Connection* first
    cdef long connections
    cdef long long requests

    def __cinit__(self, render):
        self.render = render
        self.kept = []
        self.poller = -1

    def __dealloc__(self):
        while self.first is not NULL:
            self.drop(self.first)
        if self.poller >= 0:
            close(self.poller)

    def serve(self, listeners, int control):
        cdef int failed
        if self.poller >= 0:
            raise RuntimeError("it served already")
        self.poller = epoll_create1(0)
        if self.poller < 0:
            raise OSError(errno, strerror(errno).decode())
        for listener in listeners:
            if self.add(LISTENER, listener) is NULL:
                raise OSError(errno, strerror(errno).decode())
        if self.add(CONTROL, control) is NULL:
            raise OSError(errno, strerror(errno).decode())
        with nogil:
            failed = self.run()
        if failed:
            raise OSError(failed, strerror(failed).decode())

    cdef Connection* add(self, Kind kind, int fd) noexcept nogil:
        cdef epoll_event event
        cdef Connection* made = <Connection*> calloc(1, sizeof(Connection))
        if made is NULL:
            return NULL
        made.kind, made.fd = kind, fd
        event.events = EPOLLIN
        event.data.ptr = made
        if epoll_ctl(self.poller, EPOLL_CTL_ADD, fd, &event) != 0:
            free(made)
            return NULL
        made.after = self.first
        if self.first is not NULL:
            self.first.before = made
        self.first = made
        self.connections += kind == CLIENT
        return made

    cdef void drop(self, Connection* gone) noexcept nogil:
        if gone.before is not NULL:
            gone.before.after = gone.after
        else:
            self.first = gone.after
        if gone.after is not NULL:
            gone.after.before = gone.before
        if gone.kind == CLIENT:
            close(gone.fd)
            self.connections -= 1
        free(gone.data)
        free(gone.out)
        free(gone)

    cdef int run(self) except -1 nogil:
        """Serve until the control descriptor ends; return an error number, or 0."""
        cdef epoll_event events[EVENTS]
        cdef Connection* one
        cdef char ignored[256]
        cdef int count, index, failed
        while True:
            count = epoll_wait(self.poller, events, EVENTS, -1)
            if count < 0:
                if errno != EINTR:
                    return errno
                with gil:
                    PyErr_CheckSignals()
                continue
            for index in range(count):
                one = <Connection*> events[index].data.ptr
                if one.kind == CLIENT:
                    if not self.serve_one(one):
                        self.drop(one)
                elif one.kind == LISTENER:
                    failed = self.accept(one.fd)
                    if failed:
                        return failed
                elif read(one.fd, ignored, sizeof(ignored)) <= 0:
                    return 0

    cdef int accept(self, int listener) noexcept nogil:
        cdef int fd
        while True:
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                return 0 if errno == EAGAIN or errno == EINTR or errno == ECONNABORTED else errno
            if self.add(CLIENT, fd) is NULL:
                close(fd)

    cdef bint serve_one(self, Connection* one) except? False nogil:
        """Receive what has arrived, or continue sending; return whether the connection stays open."""
        cdef ssize_t got
        cdef size_t wanted
        cdef char* grown
        if not one.blocked:
            wanted = max(one.needed, one.size + FIRST_BUFFER // 2)
            if one.capacity < wanted:
                wanted = max(wanted, 2 * one.capacity, <size_t> FIRST_BUFFER)
                grown = <char*> realloc(one.data, wanted)
                if grown is NULL:
                    return False
                one.data, one.capacity = grown, wanted
            got = recv(one.fd, one.data + one.size, one.capacity - one.size, 0)
            if got <= 0:
                return got < 0 and (errno == EAGAIN or errno == EINTR)
            one.size += got
            if one.size < one.needed:
                return True
        while True:
            if one.blocked or one.size:
                if not one.blocked and self.answer_all(one) == BROKEN:
                    one.closing = True
                    say_status(one, b"400 Bad Request")
                if not self.flush(one):
                    return False
                if one.blocked:
                    return True
                if one.closing:
                    return False
            if one.size == 0 or one.size < one.needed or head_end(one.data, one.size) is NULL:
                return one.size <= MAX_HEAD or one.needed > 0

    cdef Verdict answer_all(self, Connection* one) except? BROKEN nogil:
        """Answer every complete request received so far, until there is enough to send."""
        cdef Request request
        cdef size_t done = 0
        cdef Verdict verdict = ANSWERED
        while one.tail.size == 0 and one.out_size < GATHERED and not one.closing and done < one.size:
            verdict = read_request(one.data + done, one.size - done, &request, &one.needed)
            if verdict != ANSWERED or not self.answer(one, &request):
                break
            done += one.needed
            one.needed = 0
            one.closing = request.last
            self.requests += 1
        else:
            verdict = ANSWERED
        if verdict == ANSWERED and one.needed:
            verdict = BROKEN
        if done:
            one.size -= done
            memmove(one.data, one.data + done, one.size)
        return verdict

    cdef bint answer(self, Connection* one, Request* request) except? False nogil:
        cdef Text identity, method
        cdef Endpoint* endpoint
        if same(request.verb, b"POST", 4):
            endpoint = self.endpoint_of(one, request.path)
            if endpoint is NULL:
                return say_status(one, b"404 Not Found")
            if not read_envelope(request.body, &identity, &method):
                return False
            if identity.size == 0 or method.size == 0:
                return say_status(one, b"202 Accepted")
            if identity.size > MAX_ID:
                return False
            return say_reply(one, endpoint, method, identity)
        if same(request.verb, b"DELETE", 6):
            return say_status(one, b"200 OK")
        if same(request.verb, b"GET", 3):
            if same(request.path, b"/usage", 6):
                return self.say_usage(one)
            return say_status(one, b"405 Method Not Allowed\r\nAllow: POST, DELETE")
        return False

    cdef Endpoint* endpoint_of(self, Connection* one, Text path) except? NULL nogil:
        cdef int index
        if one.endpoint < self.known and same(path, self.endpoints[one.endpoint].path.at,
                                              self.endpoints[one.endpoint].path.size):
            return &self.endpoints[one.endpoint]
        for index in range(self.known):
            if same(path, self.endpoints[index].path.at, self.endpoints[index].path.size):
                one.endpoint = index
                return &self.endpoints[index]
        if self.known == ENDPOINTS:
            return NULL
        with gil:
            return self.learn(PyBytes_FromStringAndSize(path.at, path.size))

    cdef Endpoint* learn(self, bytes path) except? NULL:
        """Make the replies of a path, and keep them for good."""
        cdef Endpoint* made = &self.endpoints[self.known]
        cdef Answer* answer
        rendered = self.render(path)
        if rendered is None:
            return NULL
        if not 0 < len(rendered.answers) <= ANSWERS:
            raise ValueError(f"an endpoint has 1 to {ANSWERS} answers")
        made.path = text_of(path, self.kept)
        made.chunked = rendered.chunked
        made.prefix = text_of(rendered.prefix, self.kept)
        made.count = 0
        for each in rendered.answers:
            answer = &made.answers[made.count]
            answer.method = text_of(each.method, self.kept)
            answer.head = text_of(each.head, self.kept)
            answer.suffix = text_of(each.suffix, self.kept)
            answer.counted = each.counted
            made.count += 1
        self.known += 1
        return made

    cdef bint say_usage(self, Connection* one) noexcept nogil:
        cdef rusage usage
        cdef char body[160]
        cdef char head[128]
        cdef int size, head_size
        getrusage(RUSAGE_SELF, &usage)
        size = snprintf(body, sizeof(body), b'{"cpu_us":%ld,"requests":%lld,"connections":%ld}',
                        (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000
                        + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec, self.requests, self.connections)
        head_size = snprintf(head, sizeof(head),
                             b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
        return say(one, head, head_size) and say(one, body, size)

    cdef bint flush(self, Connection* one) noexcept nogil:
        """Send as much as possible; return whether the connection stays open."""
        cdef iovec parts[2]
        cdef msghdr message
        cdef ssize_t sent
        cdef size_t step
        cdef bint blocked = False
        cdef epoll_event event
        while one.out_at < one.out_size or one.tail.size:
            step = one.out_size - one.out_at
            if one.tail.size == 0:
                sent = send(one.fd, one.out + one.out_at, step, MSG_NOSIGNAL)
            else:
                parts[0].iov_base, parts[0].iov_len = one.out + one.out_at, step
                parts[1].iov_base, parts[1].iov_len = <void*> one.tail.at, one.tail.size
                memset(&message, 0, sizeof(message))
                message.msg_iov, message.msg_iovlen = parts, 2
                sent = sendmsg(one.fd, &message, MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    return False
                blocked = True
                break
            step = min(<size_t> sent, step)
            one.out_at += step
            one.tail.at += sent - step
            one.tail.size -= sent - step
        if not blocked:
            one.out_at = one.out_size = 0
        if blocked != one.blocked:
            one.blocked = blocked
            event.events = EPOLLOUT if blocked else EPOLLIN
            event.data.ptr = one
            return epoll_ctl(self.poller, EPOLL_CTL_MOD, one.fd, &event) == 0
        return True
