"""Conditions with the standard's semantics. Pure. Layer: api.

Contract: `lastTransitionTime` changes with the status and with nothing else; every condition
carries the generation it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from walplane_operator.api.names import Object
from walplane_operator.api.times import second_time

Truth = Literal["True", "False", "Unknown"]

MAX_MESSAGE = 4096


@dataclass(frozen=True)
class Condition:
    """What shall be said."""

    type: str
    status: Truth
    reason: str
    message: str = ""


def truth(value: bool) -> Truth:
    """`value` as conditions spell it."""
    return "True" if value else "False"


def merge(
    present: Sequence[Object], wanted: Iterable[Condition], generation: int, now: datetime
) -> list[Object]:
    """The conditions to write, in the order of `wanted`; others of `present` go away."""
    before = {one["type"]: one for one in present}
    return [_one(before.get(each.type), each, generation, now) for each in wanted]


def _one(before: Object | None, wanted: Condition, generation: int, now: datetime) -> Object:
    since = second_time(now)
    if before is not None and before["status"] == wanted.status:
        since = before["lastTransitionTime"]
    return {
        "type": wanted.type,
        "status": wanted.status,
        "reason": wanted.reason,
        "message": wanted.message[:MAX_MESSAGE],
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def find(conditions: Sequence[Object] | None, kind: str) -> Object | None:
    """The condition of that type, if it is there."""
    return next((one for one in conditions or [] if one.get("type") == kind), None)
