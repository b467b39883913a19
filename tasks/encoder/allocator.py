"""Thresholds of the C library's allocator, so that each batch reuses the memory of the one before."""

import ctypes

# from malloc.h of the GNU C library
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_MMAP_THRESHOLD = 32 << 20  # the library accepts no more
TRIM_THRESHOLD = 1 << 30
TOP_PAD = 64 << 20


def retain_freed_memory() -> None:
    """Make the process retain the memory that a batch frees; does nothing without the GNU C library's allocator.

    By default the output of each layer and each decoded image is returned to the system and faulted in again page by
    page, which took up to a third of a lane's time and makes readers on many cores wait for each other.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        mallopt(M_TOP_PAD, TOP_PAD)
