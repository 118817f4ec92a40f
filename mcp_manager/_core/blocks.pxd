"""Memory that is handed out piece by piece, never moves, and is freed at once."""

from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #if defined(__linux__)
    #include <stdint.h>
    #include <sys/mman.h>
    #include <unistd.h>
    /* With pages of 2 MiB, the kernel hands out much memory, and takes it back, in a fraction of the time. Where it has
       none, nothing changes. */
    static void mcp_prefer_large_pages(void *start, size_t size) {
        uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
        uintptr_t from = ((uintptr_t) start + page - 1) / page * page;
        uintptr_t to = ((uintptr_t) start + size) / page * page;
        if (from < to) madvise((void *) from, to - from, MADV_HUGEPAGE);
    }
    #else
    static void mcp_prefer_large_pages(void *start, size_t size) { (void) start; (void) size; }
    #endif
    """
    void prefer_large_pages "mcp_prefer_large_pages"(void* start, size_t size) noexcept nogil

cdef enum:
    SMALL_BLOCK = 32 * 1024
    MEDIUM_BLOCK = 1024 * 1024
    # The C library maps blocks of this size by themselves, and a block costs only what is used of it.
    LARGE_BLOCK = 64 * 1024 * 1024
    ALIGNMENT = 8

cdef struct Block:
    Block* previous
    size_t used
    size_t room

cdef struct Blocks:
    Block* latest
    # All of what was taken.
    size_t size


cdef inline void* blocks_take(Blocks* blocks, size_t size) noexcept nogil:
    """Return room for ``size`` bytes; NULL if there is no memory."""
    cdef Block* block = blocks.latest
    cdef size_t room
    size = (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    if block is NULL or block.room - block.used < size:
        room = SMALL_BLOCK if block is NULL else MEDIUM_BLOCK if block.previous is NULL else LARGE_BLOCK
        if size > room - sizeof(Block):
            room = size + sizeof(Block)
        block = <Block*> malloc(room)
        if block is NULL:
            return NULL
        block.previous, block.used, block.room = blocks.latest, sizeof(Block), room
        blocks.latest = block
    block.used += size
    blocks.size += size
    return <char*> block + block.used - size


cdef inline void blocks_free(Blocks* blocks) noexcept nogil:
    """Free everything that was taken."""
    cdef Block* block
    while blocks.latest is not NULL:
        block = blocks.latest
        blocks.latest = block.previous
        free(block)
    blocks.size = 0
