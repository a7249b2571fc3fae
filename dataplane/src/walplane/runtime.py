"""Time and randomness, passed in and never imported at the point of use.

Contract: production passes `Runtime.system()`; the simulation passes its own, so that it runs the
real code. Sleeping goes through the running loop, whose time the simulation controls.
Layer: lowest, beside `channel`.
"""

from __future__ import annotations

import ctypes
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """The outside world as seen by one process.

    Attributes:
        wall_ms: milliseconds since the Unix epoch; may jump.
        monotonic: seconds; never goes back.
        random: source of randomness, also of identifiers.
    """

    wall_ms: Callable[[], int]
    monotonic: Callable[[], float]
    random: random.Random

    @classmethod
    def system(cls) -> Runtime:
        """The machine's own clocks and entropy."""
        return cls(lambda: time.time_ns() // 1_000_000, time.monotonic, random.SystemRandom())

    def new_id(self, size: int = 16) -> bytes:
        """`size` random bytes: an identifier that no other process has."""
        return self.random.randbytes(size)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 128 << 20
_HEAP_BYTES = 32 << 20  # the largest threshold that glibc takes


def keep_large_buffers() -> bool:
    """Makes this process' allocator keep freed megabyte buffers instead of giving them back.

    Frames are buffers of about 1 MiB that come and go; glibc maps each anew and the kernel zeroes
    its pages, which costs ten times what filling it does (1.1 ms against 0.1 ms a frame). For
    processes that are walplane's own; up to 128 MiB stay with the process.

    Returns:
        Whether the allocator took the setting; False where it is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    return bool(mallopt(_M_MMAP_THRESHOLD, _HEAP_BYTES) and kept)


def keep_what_is_there() -> None:
    """Lets the collector of reference cycles pass over whatever exists by now.

    For processes that serve, once they are ready: modules and what they made are some 100,000
    objects that stay, and to look through them stops every append of a node for 50 ms.
    """
    gc.collect()
    gc.freeze()
