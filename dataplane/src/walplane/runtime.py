"""Time and randomness, passed in and never imported at the point of use.

Contract: production passes `Runtime.system()`; the simulation passes its own, so that it runs the
real code. Sleeping goes through the running loop, whose time the simulation controls.
Layer: lowest, beside `channel`.
"""

from __future__ import annotations

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
