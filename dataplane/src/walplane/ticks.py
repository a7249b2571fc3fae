"""What a TimeTick counts. Layer: lowest.

Contract: a tick is `physical_ms << 18 | logical`: milliseconds since 1970 by the coordinator's
clock, and below them a count. Whoever turns ticks into time, or time into ticks, does it by these.
"""

TICKS_PER_MS = 1 << 18
TICKS_PER_S = 1000 * TICKS_PER_MS

_FOR_EVER_S = 1e12


def ticks_in(seconds: float) -> int:
    """How many ticks a time has; one without an end has more than ticks will ever count."""
    return int(min(seconds, _FOR_EVER_S) * TICKS_PER_S)
