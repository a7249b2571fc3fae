"""Seconds and bytes as configurations take them. Layer: lowest."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

MOST_SECONDS = 1e9
"""Thirty years: gRPC can hold it as a deadline, and ticks as an age."""
MOST_BYTES = 1 << 50
"""More than any machine has, and gRPC can hold it as credit."""


def _held(seconds: float) -> float:
    return min(seconds, MOST_SECONDS)


Seconds = Annotated[float, Field(gt=0), AfterValidator(_held)]
"""More than 0; above `MOST_SECONDS`, infinity too, it is these, which nobody will tell from it."""
Bytes = Annotated[int, Field(gt=0, le=MOST_BYTES)]
