"""The allocator's thresholds, so that the memory of one batch serves the next."""

import ctypes

# of malloc.h in the GNU C library
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_MMAP_THRESHOLD = 32 << 20  # the library takes no more
KEPT = 1 << 30
AT_ONCE = 64 << 20


def keep_freed_memory() -> None:
    """Let the process keep what a batch frees, where it has the GNU C library's allocator.

    By default each layer's output and each decoded image goes back to the system, and comes again page by page: that
    took up to a third of a lane's time, and readers on many cores wait for each other.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_TOP_PAD, AT_ONCE)
