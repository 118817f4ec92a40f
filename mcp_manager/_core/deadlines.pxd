from libc.stdint cimport int64_t


cdef class Deadline:
    cdef Deadline before
    cdef Deadline after
    # Where it hangs, -1 when it does not.
    cdef int slot
    # The wheel that it hangs in; only ever compared.
    cdef void* wheel
    cdef int64_t due_ns
    cpdef object expired(self)


cdef class DeadlineWheel:
    cdef list slots
    cdef Py_ssize_t waiting
    # The tick of the last visit, and the one a visit is asked for.
    cdef int64_t visited
    cdef int64_t asked
    cdef object clock
    cdef object ask
    cdef int put(self, Deadline deadline, int64_t due_ns) except -1
    cdef int hang(self, Deadline deadline, int slot) except -1
    cdef int take(self, Deadline deadline) except -1
    cdef int64_t next_occupied(self)
    cdef object ask_for(self, int64_t tick)
