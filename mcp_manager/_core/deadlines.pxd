from libc.stdint cimport int64_t


cdef class Deadline:
    cdef Deadline before
    cdef Deadline after
    # Its slot in the wheel, -1 if it is in none.
    cdef int slot
    # The wheel that it is in; only compared, never dereferenced.
    cdef void* wheel
    cdef int64_t due_ns
    cpdef object expired(self)


cdef class DeadlineWheel:
    cdef list slots
    cdef Py_ssize_t waiting
    # The tick of the last visit, and the tick that the next visit was requested for.
    cdef int64_t visited
    cdef int64_t asked
    cdef object clock
    cdef object ask
    cdef int put(self, Deadline deadline, int64_t due_ns) except -1
    cdef int hang(self, Deadline deadline, int slot) except -1
    cdef int take(self, Deadline deadline) except -1
    cdef int64_t next_occupied(self)
    cdef object ask_for(self, int64_t tick)
