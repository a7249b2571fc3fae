"""Reads CSV, JSON lines and Parquet as Arrow record batches. Layer: cli.

Contract: rows come in file order and in bounded memory. Column types are taken from the first
chunk of about 1 MiB and may widen later (nothing to anything, whole numbers to fractions). A
record that does not fit is `MalformedInput` with its line, after every row before it was given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from walplane.cli.records import Chunk, MalformedInput, chunks, records

FORMATS = ("csv", "jsonl", "parquet")
_SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_MAX_REASON = 200


def format_of(path: Path) -> str | None:
    """The format that the file's name tells, one of `FORMATS`; None when it tells none."""
    return _SUFFIXES.get(path.suffix.lower())


def read_batches(
    stream: BinaryIO, file: str, kind: str, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of `stream` in batches of at most `batch_rows`; `file` names it in errors.

    Raises:
        MalformedInput: a record cannot be read; every row before it was given.
    """
    if kind == "parquet":
        return _parquet(stream, file, batch_rows)
    return _text(stream, file, _Csv() if kind == "csv" else _JsonLines(), batch_rows)


class _TextFormat(Protocol):
    """How one text format is parsed."""

    quoted: bool

    def parse(self, data: bytes, schema: pa.Schema | None) -> pa.Table:
        """Whole records to rows; `schema` has the types so far, None before the first chunk.

        Raises:
            pyarrow.ArrowException: a record is malformed or does not fit.
        """
        ...

    def reason(self, record: bytes, error: pa.ArrowException, names: list[str]) -> str:
        """What is wrong with `record`, the one that `error` is about."""
        ...


class _Csv:
    """RFC 4180 with a header line."""

    quoted = True

    def parse(self, data: bytes, schema: pa.Schema | None) -> pa.Table:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                column_names=schema.names if schema else None,
                block_size=len(data) + 1,
            ),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=_known(schema)),
        )

    def reason(self, record: bytes, error: pa.ArrowException, names: list[str]) -> str:
        text = str(error)
        if match := re.search(r"Expected (\d+) columns, got (\d+)", text):
            return f"expected {match[1]} columns, got {match[2]}: {_quote(record)}"
        if match := re.search(r"column #(\d+).*error to ([^:]+): (.*)", text, re.DOTALL):
            number = int(match[1])
            name = names[number] if number < len(names) else f"#{number}"
            return f"column {name!r} has type {match[2]}: {match[3]}"[:_MAX_REASON]
        return text[:_MAX_REASON]


class _JsonLines:
    """One JSON object a line."""

    quoted = False

    def parse(self, data: bytes, schema: pa.Schema | None) -> pa.Table:
        return pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=_known(schema), unexpected_field_behavior="infer"
            ),
        )

    def reason(self, record: bytes, error: pa.ArrowException, names: list[str]) -> str:
        try:
            value = json.loads(record.strip())
        except json.JSONDecodeError as wrong:
            return f"not valid JSON, {wrong.msg} at column {wrong.colno}: {_quote(record)}"
        except UnicodeDecodeError:
            return f"not UTF-8: {_quote(record)}"
        if not isinstance(value, dict):
            return f"not a JSON object: {_quote(record)}"
        return re.sub(r"^JSON parse error: | in row \d+$", "", str(error))[:_MAX_REASON]


def _text(
    stream: BinaryIO, file: str, form: _TextFormat, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Rows of a text format: chunk by chunk, cut into batches."""
    schema: pa.Schema | None = None
    for chunk in chunks(stream, file, quoted=form.quoted):
        if not chunk.data.strip():
            continue
        table, malformed = _parse_chunk(chunk, file, form, schema)
        if table is not None:
            schema = table.schema
            yield from table.combine_chunks().to_batches(max_chunksize=batch_rows)
        if malformed is not None:
            raise malformed
    if schema is None:
        raise MalformedInput(file, None, "there is nothing in it")


def _parse_chunk(
    chunk: Chunk, file: str, form: _TextFormat, schema: pa.Schema | None
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


def _parse(data: bytes, form: _TextFormat, schema: pa.Schema | None) -> pa.Table:
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


def _known(schema: pa.Schema | None) -> pa.Schema | None:
    """The columns whose type is known; one that has held nothing so far may become anything."""
    if schema is None:
        return None
    return pa.schema([field for field in schema if not pa.types.is_null(field.type)])


def _parquet(stream: BinaryIO, file: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Rows of a Parquet file, which tells its own types."""
    try:
        yield from pa_parquet.ParquetFile(stream).iter_batches(batch_rows, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise MalformedInput(file, None, f"not a whole Parquet file: {error}") from error


def _quote(record: bytes) -> str:
    text = " ".join(record.decode(errors="replace").split())
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
