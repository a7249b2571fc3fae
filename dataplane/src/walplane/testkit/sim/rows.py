"""Parts as the simulation stores them: rows that a checker reads without the product's help.

Contract: a `SegmentFormat` that is cheap, and cuts parts where a schema would change; where that
is, the log alone says, so that every writer cuts in the same places. Layer: testkit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from walplane.message import codec
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.recovery.segments.store import Encoded
from walplane.wal.recovery.segments.units import Unit

_SCHEMA_CHANGES = 16  # one unit in so many has a schema of its own


class Row(NamedTuple):
    """One row of a part."""

    tick: int
    entry: str
    payload: bytes


class RowFormat:
    """A `SegmentFormat`."""

    suffix = "rows"

    def encode(self, units: Sequence[Unit], about: dict[str, str]) -> Iterator[Encoded]:
        """See `SegmentFormat`."""
        runs: list[list[Unit]] = []
        for unit in units:
            if not runs or _is_odd(unit) or _is_odd(runs[-1][-1]):
                runs.append([])
            runs[-1].append(unit)
        return (_encode(run, about) for run in runs)

    def describe(self, data: bytes, about: dict[str, str]) -> Encoded:
        """See `SegmentFormat`."""
        said = json.loads(data)
        if said["about"] != about:
            raise WalError(ErrorCode.UNRECOVERABLE, f"an object of {said['about']} in the way")
        return Encoded(said["first_tick"], said["last_tick"], len(said["rows"]), data)


def rows_of(data: bytes) -> tuple[dict[str, str], list[Row]]:
    """Whose rows a part holds, and which."""
    said = json.loads(data)
    rows = [Row(tick, entry, payload.encode("latin-1")) for tick, entry, payload in said["rows"]]
    return said["about"], rows


def _is_odd(unit: Unit) -> bool:
    return unit.first_tick % _SCHEMA_CHANGES == 0


def _encode(run: Sequence[Unit], about: dict[str, str]) -> Encoded:
    first, last, rows = run[0].first_tick, run[-1].tick, list(_rows(run))
    said = {"about": about, "first_tick": first, "last_tick": last, "rows": rows}
    return Encoded(first, last, len(rows), json.dumps(said).encode())


def _rows(run: Sequence[Unit]) -> Iterator[tuple[int, str, str]]:
    for unit in run:
        for item in unit.entries:
            codec.check_stored_entry(item.entry, str(item.message_id))
            for number, payload in enumerate(codec.decode_body(item.entry.body)[1]):
                tick = unit.commit or item.first_tick + number
                yield tick, str(item.message_id), payload.decode("latin-1")
