"""CSV and JSON lines: from the bytes of whole records to rows, and to their keys. Layer: cli.

Contract: a key is taken from the text of its record wherever a column's type could change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json

from walplane.cli.exact import check_csv, check_json
from walplane.cli.keys import json_object, key_bytes
from walplane.cli.records import Chunk, MalformedInput, records
from walplane.cli.rows import check_key

_MAX_REASON = 200
_AS_WRITTEN = {pa.string(), pa.int64(), pa.bool_(), pa.null()}
"""Types of JSON columns from which a key can be told as it is written."""

_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]  # not the numbers 1 and 0
_MAX_DEPTH = 50  # Arrow writes 64 levels at most, and its parser dies of some thousand
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}\n"))
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_OPENING, _CLOSING = {b"[", b"{"}, {b"]", b"}"}


class TextFormat(Protocol):
    """How one text format is parsed."""

    quoted: bool

    def parse(self, data: bytes, schema: pa.Schema | None) -> pa.Table:
        """Whole records to rows; `schema` has the types so far, None before the first chunk.

        Raises:
            pyarrow.ArrowException: a record is malformed or does not fit.
        """
        ...

    def keys(
        self, table: pa.Table, chunk: Chunk, file: str
    ) -> tuple[pa.Array | None, MalformedInput | None]:
        """The keys of the rows of a chunk, up to the first that has none, and why it has none.

        Raises:
            CommandError: there is no such column.
        """
        ...

    def reason(self, record: bytes, error: pa.ArrowException, names: list[str]) -> str:
        """What is wrong with `record`, the one that `error` is about."""
        ...


class Csv:
    """RFC 4180 with a header line; the key is text, as it is written: no later type moves it."""

    quoted = True

    def __init__(self, key: str | None) -> None:
        """Takes the name of the key's column."""
        self._key = key

    def parse(self, data: bytes, schema: pa.Schema | None) -> pa.Table:
        """As `TextFormat.parse`."""
        types = self._types(schema)
        table = _read_csv(data, schema, types)
        try:
            table.schema.names  # noqa: B018 - decodes the header
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid("the names of the columns are not UTF-8") from error
        check_csv(table, lambda names: _read_csv(data, schema, types | _texts(names)))
        return table

    def _types(self, schema: pa.Schema | None) -> dict[str, pa.DataType]:
        types = {field.name: field.type for field in _known(schema) or ()}
        return types if self._key is None else {**types, self._key: pa.string()}

    def keys(
        self, table: pa.Table, chunk: Chunk, file: str
    ) -> tuple[pa.Array | None, MalformedInput | None]:
        """As `TextFormat.keys`."""
        if self._key is None:
            return None, None
        check_key(table.schema, self._key)
        return _whole(table.column(self._key)), None

    def reason(self, record: bytes, error: pa.ArrowException, names: list[str]) -> str:
        """As `TextFormat.reason`."""
        text = str(error)
        if match := re.search(r"Expected (\d+) columns, got (\d+)", text):
            return f"expected {match[1]} columns, got {match[2]}: {_quote(record)}"
        if match := re.search(r"column #(\d+).*error to ([^:]+): (.*)", text, re.DOTALL):
            number = int(match[1])
            name = names[number] if number < len(names) else f"#{number}"
            return f"column {name!r} has type {match[2]}: {match[3]}"[:_MAX_REASON]
        return text[:_MAX_REASON]


class JsonLines:
    """One JSON object a line."""

    quoted = False

    def __init__(self, key: str | None) -> None:
        """Takes the name of the key's column."""
        self._key = key

    def parse(self, data: bytes, schema: pa.Schema | None) -> pa.Table:
        """As `TextFormat.parse`."""
        objects = _check_lines(data)
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=_known(schema), unexpected_field_behavior="infer"
            ),
        )
        if table.num_rows != objects:
            raise pa.ArrowInvalid("more than one object in a line")
        check_json(table, data)
        return table

    def keys(
        self, table: pa.Table, chunk: Chunk, file: str
    ) -> tuple[pa.Array | None, MalformedInput | None]:
        """As `TextFormat.keys`."""
        if self._key is None:
            return None, None
        check_key(table.schema, self._key)
        column = _whole(table.column(self._key))
        if column.type in _AS_WRITTEN:
            return column, None
        return _json_keys(chunk, file, self._key, table.num_rows)

    def reason(self, record: bytes, error: pa.ArrowException, names: list[str]) -> str:
        """As `TextFormat.reason`."""
        try:
            value = json.loads(record.strip(), parse_int=str)  # of any length
        except json.JSONDecodeError as wrong:
            return f"not valid JSON, {wrong.msg} at column {wrong.colno}: {_quote(record)}"
        except UnicodeDecodeError:
            return f"not UTF-8: {_quote(record)}"
        except RecursionError:
            return str(error)
        if not isinstance(value, dict):
            return f"not a JSON object: {_quote(record)}"
        return re.sub(r"^JSON parse error: | in row \d+$", "", str(error))[:_MAX_REASON]


def _read_csv(data: bytes, schema: pa.Schema | None, types: dict[str, pa.DataType]) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(data),
        read_options=pa_csv.ReadOptions(
            use_threads=False,
            column_names=schema.names if schema else None,
            block_size=len(data) + 1,
        ),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=types, true_values=_TRUE, false_values=_FALSE
        ),
    )


def _texts(names: list[str]) -> dict[str, pa.DataType]:
    return dict.fromkeys(names, pa.string())


def _check_lines(data: bytes) -> int:
    """Finds what Arrow's parser takes though it is no object a line, and what it dies of.

    Returns:
        How many objects there are.

    Raises:
        pyarrow.ArrowInvalid: there is such a line.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid("not UTF-8") from error
    shapes = data.translate(None, _NOT_BRACKETS).split(b"\n")
    suspects = {shape for shape in set(shapes) if not _is_whole(re.findall(rb".", shape))}
    for shape, line in zip(shapes, data.split(b"\n"), strict=True) if suspects else ():
        if shape in suspects and line.strip() and not _is_whole(_TOKENS.findall(line)):
            raise pa.ArrowInvalid(f"nested deeper than {_MAX_DEPTH} levels")
    return len(shapes) - shapes.count(b"")


def _is_whole(tokens: Sequence[bytes]) -> bool:
    """Whether brackets open, not too deep, and close again; other tokens do not count."""
    depth = deepest = 0
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        deepest = max(deepest, depth)
    return depth == 0 and 0 < deepest <= _MAX_DEPTH


def _json_keys(
    chunk: Chunk, file: str, key: str, rows: int
) -> tuple[pa.Array, MalformedInput | None]:
    """The keys of the first `rows` lines from their own text: a column's type may have lost it."""
    found: list[bytes] = []
    for number, record in enumerate(records(chunk.data, quoted=False), chunk.first_line):
        if len(found) == rows:
            break
        if not record.strip():
            continue
        try:
            found.append(key_bytes(json_object(record).get(key)))
        except ValueError as error:
            why = f"it has no key {key!r}, {error}: {_quote(record)}"
            return pa.array(found, pa.binary()), MalformedInput(file, number, why)
    return pa.array(found, pa.binary()), None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """All of a column; `combine_chunks` may give chunks again."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _known(schema: pa.Schema | None) -> pa.Schema | None:
    """The columns whose type is known; one that has held nothing so far may become anything."""
    if schema is None:
        return None
    return pa.schema([field for field in schema if not pa.types.is_null(field.type)])


def _quote(record: bytes) -> str:
    text = " ".join(record.decode(errors="replace").split())
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
