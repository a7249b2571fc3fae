"""Reads CSV, JSON lines and Parquet as Arrow record batches. Layer: cli.

Contract: rows come in file order and in bounded memory. Column types are taken from the first
chunk of about 1 MiB and may widen later (nothing to anything, whole numbers to fractions). A
record that does not fit is `MalformedInput` with its line, after every row before it was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from walplane.cli.errors import WRONG_USE, CommandError
from walplane.cli.records import Chunk, MalformedInput, chunks, records
from walplane.cli.rows import Rows, typed_keys
from walplane.cli.textformats import Csv, JsonLines, TextFormat

FORMATS = ("csv", "jsonl", "parquet")
_SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def format_of(path: Path) -> str | None:
    """The format that the file's name tells, one of `FORMATS`; None when it tells none."""
    return _SUFFIXES.get(path.suffix.lower())


def read_batches(
    stream: BinaryIO, file: str, kind: str, batch_rows: int, key: str | None = None
) -> Iterator[Rows]:
    """The rows of `stream`, at most `batch_rows` at a time, with the keys in their column `key`.

    Args:
        stream: the file.
        file: its name, for errors.
        kind: one of `FORMATS`.
        batch_rows: most rows at a time.
        key: name of the column; None for rows without keys.

    Raises:
        MalformedInput: a record cannot be read; every row before it was given.
        CommandError: there is no column `key`, or its values are no keys.
    """
    if kind == "parquet":
        return _parquet(stream, file, batch_rows, key)
    return _text(stream, file, Csv(key) if kind == "csv" else JsonLines(key), batch_rows)


def _text(stream: BinaryIO, file: str, form: TextFormat, batch_rows: int) -> Iterator[Rows]:
    """Rows of a text format: chunk by chunk, cut into batches."""
    schema: pa.Schema | None = None
    for chunk in chunks(stream, file, quoted=form.quoted):
        if not chunk.data.strip():
            continue
        table, malformed = _parse_chunk(chunk, file, form, schema)
        if table is not None:
            schema = table.schema
            keys, unfit = form.keys(table, chunk, file)
            yield from _cut(table, keys, batch_rows)
            malformed = unfit or malformed
        if malformed is not None:
            raise malformed
    if schema is None:
        raise MalformedInput(file, None, "there is nothing in it")


def _cut(table: pa.Table, keys: pa.Array | None, batch_rows: int) -> Iterator[Rows]:
    """The rows that have a key, if there are keys at all."""
    usable = table if keys is None else table.slice(0, len(keys))
    at = 0
    for batch in usable.combine_chunks().to_batches(max_chunksize=batch_rows):
        yield Rows(batch, None if keys is None else keys.slice(at, batch.num_rows))
        at += batch.num_rows


def _parse_chunk(
    chunk: Chunk, file: str, form: TextFormat, schema: pa.Schema | None
) -> tuple[pa.Table | None, MalformedInput | None]:
    """The rows before the first malformed record, and the error that this one is."""
    try:
        return _parse(chunk.data, form, schema), None
    except pa.ArrowException as error:
        failure = error
    parts = records(chunk.data, quoted=form.quoted)
    good, bad = 0, len(parts)  # the first `good` records parse, the first `bad` do not
    table: pa.Table | None = None
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            table = _parse(b"".join(parts[:middle]), form, schema)
            good = middle
        except pa.ArrowException as error:
            bad, failure = middle, error
    names = schema.names if schema else table.schema.names if table is not None else []
    line = chunk.first_line + sum(part.count(b"\n") for part in parts[:good])
    return table, MalformedInput(file, line, form.reason(parts[good], failure, names))


def _parse(data: bytes, form: TextFormat, schema: pa.Schema | None) -> pa.Table:
    """Rows under the types so far, or under wider ones when that is enough.

    Raises:
        pyarrow.ArrowException: a record fits neither.
    """
    try:
        return form.parse(data, schema)
    except pa.ArrowException:
        if schema is None:
            raise
        fresh = form.parse(data, pa.schema([(name, pa.null()) for name in schema.names]))
        try:
            wider = pa.unify_schemas([schema, fresh.schema], promote_options="permissive")
        except pa.ArrowException:
            wider = schema  # they do not agree: the first error tells why
        if wider == schema:
            raise
        return form.parse(data, wider)


def _parquet(stream: BinaryIO, file: str, batch_rows: int, key: str | None) -> Iterator[Rows]:
    """Rows of a Parquet file, which tells its own types."""
    if not stream.seekable():
        raise CommandError(f"{file}: a Parquet file cannot come from a pipe", WRONG_USE)
    try:
        for batch in pa_parquet.ParquetFile(stream).iter_batches(batch_rows, use_threads=False):
            yield Rows(batch, None if key is None else typed_keys(batch, key))
    except (pa.ArrowException, OSError) as error:
        raise MalformedInput(file, None, f"not a whole Parquet file: {error}") from error
