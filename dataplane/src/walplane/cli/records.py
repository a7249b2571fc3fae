"""Cuts a text file into chunks of whole records, with line numbers, in bounded memory. Layer: cli.

A record is a line; in quoted text (CSV, RFC 4180) a newline between double quotes belongs to the
record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK_BYTES = 1 << 20
MAX_RECORD_BYTES = 16 << 20
_QUOTED = re.compile(rb'"[^"]*(?:""[^"]*)*"(?!")')
_SEPARATOR = re.compile(rb"[,\n]")


class MalformedInput(Exception):
    """A record that cannot be read.

    Attributes:
        file: name of the file.
        line: number of the record's first line, from 1; None when the format has no lines.
        reason: what is wrong with it.
    """

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        """Builds `file:line: reason`."""
        super().__init__(f"{file}:{line}: {reason}" if line else f"{file}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


@dataclass(frozen=True)
class Chunk:
    """Whole records.

    Attributes:
        data: their bytes.
        first_line: number of the first line, from 1.
    """

    data: bytes
    first_line: int


def chunks(
    stream: BinaryIO, file: str, *, quoted: bool, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """The chunks of `stream`, each about `chunk_bytes`; `file` names it in errors.

    Raises:
        MalformedInput: a record is longer than `MAX_RECORD_BYTES`, or the last one does not end.
    """
    held = b""
    line = 1
    while block := stream.read(chunk_bytes):
        held += block
        end = _last_end(held, quoted)
        if end == 0:
            if len(held) > MAX_RECORD_BYTES:
                hint = "; is a double quote left open?" if quoted else ""
                raise MalformedInput(
                    file, line, f"a record longer than {MAX_RECORD_BYTES >> 20} MiB{hint}"
                )
            continue
        yield Chunk(held[:end], line)
        line += held.count(b"\n", 0, end)
        held = held[end:]
    end = _last_end(held, quoted)
    if quoted and _is_open(held[end:]):
        if end:
            yield Chunk(held[:end], line)
        raise MalformedInput(file, line + held.count(b"\n", 0, end), "a double quote is left open")
    if held:
        yield Chunk(held, line)


def records(data: bytes, *, quoted: bool) -> list[bytes]:
    """The records of a chunk, each with its newline."""
    lines = data.splitlines(keepends=True) if b"\r" not in data else _split(data)
    if not quoted or b'"' not in data:
        return lines
    whole: list[bytes] = []
    open_quote = False
    for line in lines:
        if open_quote:
            whole[-1] += line
        else:
            whole.append(line)
        open_quote ^= line.count(b'"') % 2 == 1
    return whole


def _split(data: bytes) -> list[bytes]:
    """Lines ended by a newline only: a lone carriage return ends nothing here."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _is_open(record: bytes) -> bool:
    """Whether a quoted field does not end; a quote in the middle of a field opens nothing."""
    at = 0
    while at < len(record):
        if record[at : at + 1] == b'"':
            field = _QUOTED.match(record, at)
            if field is None:
                return True
            at = field.end()
        separator = _SEPARATOR.search(record, at)
        if separator is None:
            return False
        at = separator.end()
    return False


def _last_end(data: bytes, quoted: bool) -> int:
    """Offset behind the last whole record; 0 when there is none."""
    end = data.rfind(b"\n") + 1
    if not quoted:
        return end
    odd = data.count(b'"', 0, end) % 2
    while end and odd:  # the last quote before `end` is an open one: the record began before it
        previous = data.rfind(b"\n", 0, data.rfind(b'"', 0, end)) + 1
        odd ^= data.count(b'"', previous, end) % 2
        end = previous
    return end
