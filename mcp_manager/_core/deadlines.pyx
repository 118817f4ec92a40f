"""A hashed timing wheel: thousands of deadlines on one timer, each added and removed in constant time."""

cimport cython
from libc.stdint cimport int64_t

cdef enum:
    # Ticks of 2**22 ns (4.2 ms), 17 s per revolution: most deadlines are removed before their slot is visited once.
    TICK_BITS = 22
    SLOTS = 4096
    SLOT_MASK = 4095
    # An extra slot for the deadlines that a visit found due: until one has expired, it can still be removed.
    DUE = 4096

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF
TICK_NS = 1 << TICK_BITS


cdef class Deadline:
    def __cinit__(self):
        self.slot = -1

    @property
    def pending(self):
        return self.slot >= 0

    cpdef object expired(self):
        pass


@cython.final
cdef class DeadlineWheel:
    def __cinit__(self, clock, ask):
        self.clock = clock
        self.ask = ask
        self.slots = [None] * (SLOTS + 1)
        self.visited = <int64_t> clock() >> TICK_BITS
        self.asked = NEVER

    def __len__(self):
        return self.waiting

    def add(self, Deadline deadline not None, int64_t due_ns):
        self.put(deadline, due_ns)

    def remove(self, Deadline deadline not None):
        self.take(deadline)

    cdef int put(self, Deadline deadline, int64_t due_ns) except -1:
        cdef int64_t tick
        if deadline.slot >= 0:
            raise ValueError("the deadline is set already")
        if self.waiting == 0:
            # No deadline can be due in the ticks since the last visit.
            self.visited = <int64_t> self.clock() >> TICK_BITS
        # Rounded up, so that none expires early. One that has passed is due at the next tick.
        tick = (due_ns >> TICK_BITS) + 1
        if tick <= self.visited:
            tick = self.visited + 1
        deadline.due_ns = due_ns
        self.hang(deadline, <int> (tick & SLOT_MASK))
        if tick < self.asked:
            self.ask_for(tick)
        return 0

    cdef int hang(self, Deadline deadline, int slot) except -1:
        cdef Deadline head = <Deadline> self.slots[slot]
        deadline.slot = slot
        deadline.wheel = <void*> self
        deadline.after = head
        if head is not None:
            head.before = deadline
        self.slots[slot] = deadline
        self.waiting += 1
        return 0

    cdef int take(self, Deadline deadline) except -1:
        if deadline.slot < 0:
            return 0
        if deadline.wheel != <void*> self:
            raise ValueError("the deadline is set in another wheel")
        if deadline.before is not None:
            deadline.before.after = deadline.after
        else:
            self.slots[deadline.slot] = deadline.after
        if deadline.after is not None:
            deadline.after.before = deadline.before
        deadline.before = None
        deadline.after = None
        deadline.slot = -1
        self.waiting -= 1
        return 0

    def visit(self, int64_t now_ns):
        cdef int64_t now = now_ns >> TICK_BITS
        cdef int64_t tick = now
        cdef int64_t last
        cdef Deadline each, following
        self.asked = NEVER
        if self.waiting > 0:
            # From the latest tick to the earliest, each deadline before those found so far: the earliest ends up first.
            last = self.visited if now - self.visited < SLOTS else now - SLOTS
            while tick > last:
                each = <Deadline> self.slots[tick & SLOT_MASK]
                while each is not None:
                    following = each.after
                    if each.due_ns <= now_ns:
                        self.take(each)
                        self.hang(each, DUE)
                    each = following
                tick -= 1
        if now > self.visited:
            self.visited = now
        try:
            while (each := <Deadline> self.slots[DUE]) is not None:
                self.take(each)
                each.expired()
        finally:
            if self.waiting > 0:
                tick = self.next_occupied()
                if tick < self.asked:
                    self.ask_for(tick)

    def clear(self):
        cdef Deadline each, following
        cdef int slot
        for slot in range(SLOTS + 1):
            each = <Deadline> self.slots[slot]
            while each is not None:
                following = each.after
                self.take(each)
                each = following
        self.asked = NEVER

    cdef int64_t next_occupied(self):
        cdef int64_t tick
        if self.slots[DUE] is not None:
            return self.visited + 1
        for tick in range(self.visited + 1, self.visited + SLOTS + 1):
            if self.slots[tick & SLOT_MASK] is not None:
                return tick
        return NEVER

    cdef object ask_for(self, int64_t tick):
        self.asked = tick
        self.ask(tick << TICK_BITS)
