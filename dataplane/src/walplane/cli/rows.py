"""Rows of a file, with what chooses the shard of each. Layer: cli."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from walplane.cli.errors import WRONG_USE, CommandError


class Rows(NamedTuple):
    """Consecutive rows.

    Attributes:
        batch: the rows.
        keys: one value of `key_bytes` a row; None when their shard does not depend on them.
        large: it is one row that may be too large for a message.
    """

    batch: pa.RecordBatch
    keys: pa.Array | None
    large: bool = False

    def behind(self, count: int) -> Rows:
        """Without the first `count`."""
        return self.cut(count, self.batch.num_rows)

    def cut(self, start: int, end: int) -> Rows:
        """The rows `start` .. `end` (excluded)."""
        keys = None if self.keys is None else self.keys.slice(start, end - start)
        return Rows(self.batch.slice(start, end - start), keys)


def check_key(schema: pa.Schema, key: str) -> None:
    """Raises unless `schema` has one column `key`.

    Raises:
        CommandError: wrong use, with the columns that there are.
    """
    found = schema.names.count(key)
    if found == 1:
        return
    names = ", ".join(schema.names)
    there = f"there are {found} columns {key!r}" if found else f"there is no column {key!r}"
    raise CommandError(f"{there}: the file has {names}", WRONG_USE)


def typed_keys(batch: pa.RecordBatch, key: str) -> pa.Array:
    """The keys of rows whose file tells their types.

    Raises:
        CommandError: wrong use: there is no such column, or its values are no keys.
    """
    check_key(batch.schema, key)
    column = batch.column(key)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind):
        raise CommandError(
            f"column {key!r} has type {kind}, which is no key: take one of text or numbers",
            WRONG_USE,
        )
    if pa.types.is_timestamp(kind):
        return _moments(column.cast(pa.timestamp(kind.unit)), kind.unit)  # in UTC
    if pa.types.is_time(kind):
        return _moments(column, kind.unit)
    return column


def _moments(column: pa.Array, unit: str) -> pa.Array:
    """As text that does not depend on the unit: without zeros at the end of a fraction."""
    text = column.cast(pa.string())
    if unit == "s":
        return text
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")
