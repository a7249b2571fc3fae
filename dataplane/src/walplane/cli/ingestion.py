"""One file's way into one collection. Layer: cli.

Contract: rows of one shard are appended in file order, some tens of MiB in flight. When it ends
early, everything in flight is settled first, and the message says how many rows from the beginning
are acknowledged. A row that is large for a message goes alone: when it is refused, nothing behind
it was sent.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from walplane.cli.errors import INTERRUPTED, WRONG_USE, CommandError, describe, exit_code_of
from walplane.cli.files import InputFile
from walplane.cli.progress import RowProgress
from walplane.cli.records import MalformedInput
from walplane.cli.run import needs
from walplane.client import CollectionInfo, StreamingClient
from walplane.message.builder import insert
from walplane.rpc.errors import WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import log_pb2

if TYPE_CHECKING:  # an extra: only `needs` may import it
    from walplane.cli.arrow import Piece
    from walplane.cli.rows import Rows

IN_FLIGHT_BYTES = 32 << 20


class _Source:
    """Consecutive rows of the file on their way: done when all their pieces are."""

    def __init__(self, first: int, rows: int, pieces: int) -> None:
        """`first` is the number of the first row, from 1."""
        self.first = first
        self.rows = rows
        self.pieces = pieces


class Ingestion:
    """Appends the rows of one file.

    Attributes:
        rows: acknowledged.
        prefix: acknowledged without a gap from the beginning, skipped rows included.
        messages: acknowledged.
        payload_bytes: acknowledged.
        seconds: the whole took.
    """

    def __init__(
        self, wal: StreamingClient, info: CollectionInfo, timeout_s: float, asked: asyncio.Event
    ) -> None:
        """Reads nothing before `run`; ends early once `asked` is set."""
        self.rows = self.prefix = self.messages = self.payload_bytes = 0
        self.seconds = 0.0
        self._skipped = self._read = self._turn = 0
        self._wal = wal
        self._info = info
        self._timeout_s = timeout_s
        self._asked = asked
        self._budget = ByteBudget(IN_FLIGHT_BYTES)
        self._sources: deque[_Source] = deque()
        self._failure: Exception | None = None
        self._pieces: Callable[[Rows, int, int], list[Piece]]
        self._pieces = needs("standalone", "walplane.cli.arrow").pieces
        self._apart: Callable[[Rows], Iterator[Rows]]
        self._apart = needs("standalone", "walplane.cli.arrow").large_rows_apart

    async def run(
        self, stream: InputFile, file: str, batches: Iterator[Rows], skip_rows: int
    ) -> None:
        """Appends every row of `batches` behind the first `skip_rows`.

        Raises:
            CommandError: it ended early; the text says how many rows are acknowledged.
        """
        self.prefix = self._skipped = skip_rows
        with RowProgress(file.rpartition(os.sep)[2], stream.size) as progress:
            async with asyncio.TaskGroup() as tasks:
                try:
                    await self._append_all(stream, batches, tasks, progress)
                except (MalformedInput, CommandError, OSError) as error:
                    self._failure = self._failure or error  # what is in flight is settled first
        self.seconds = progress.seconds
        if self._asked.is_set() and not isinstance(self._failure, WalError):
            self._failure = CommandError("interrupted", INTERRUPTED)
        if self._failure is not None:
            raise self._ended_early(self._failure)

    async def _append_all(
        self,
        stream: InputFile,
        batches: Iterator[Rows],
        tasks: asyncio.TaskGroup,
        progress: RowProgress,
    ) -> None:
        while not self._ending:
            rows = await asyncio.to_thread(next, batches, None)
            if rows is None:
                self._check_skipped()
                return
            skipped = min(max(self._skipped - self._read, 0), rows.batch.num_rows)
            self._read += skipped
            if skipped == rows.batch.num_rows:
                continue
            for part in self._apart(rows.behind(skipped)):
                await self._append_rows(part, tasks)
            progress.update(self.rows, stream.position())

    @property
    def _ending(self) -> bool:
        return self._failure is not None or self._asked.is_set()

    def _check_skipped(self) -> None:
        if self._read < self._skipped:
            raise CommandError(
                f"--skip-rows {self._skipped}, but the file has {self._read:,} rows", WRONG_USE
            )

    async def _append_rows(self, rows: Rows, tasks: asyncio.TaskGroup) -> None:
        """Hands over consecutive rows; a large one between what is behind and what is before it."""
        if rows.large:
            await self._settled()
        if self._ending:
            return
        parts = await asyncio.to_thread(self._pieces, rows, len(self._info.vchannels), self._turn)
        self._turn += 1
        source = _Source(self._read + 1, rows.batch.num_rows, len(parts))
        self._read += source.rows
        self._sources.append(source)
        for piece in parts:
            await self._budget.acquire(len(piece.payload))
            tasks.create_task(self._append(piece, source))
        if rows.large:
            await self._settled()

    async def _settled(self) -> None:
        """Waits until nothing is in flight."""
        await self._budget.acquire(IN_FLIGHT_BYTES)
        self._budget.release(IN_FLIGHT_BYTES)

    async def _append(self, piece: Piece, source: _Source) -> None:
        message = insert(
            self._info.vchannels[piece.shard],
            piece.payload,
            collection_id=self._info.collection_id,
            partition_id=self._info.default_partition_id,
            schema_version=self._info.schema_version,
            rows=piece.rows,
            payload_format=log_pb2.PAYLOAD_FORMAT_ARROW_STREAM,
        )
        try:
            await self._wal.append(message, timeout=self._timeout_s)
        except WalError as error:
            if source.rows == 1:
                error = WalError(error.code, f"row {source.first:,}: {error.message}")
            self._failure = self._failure or error
            return
        finally:
            self._budget.release(len(piece.payload))
        self.rows += piece.rows
        self.messages += 1
        self.payload_bytes += len(piece.payload)
        source.pieces -= 1
        while self._sources and not self._sources[0].pieces:
            self.prefix += self._sources.popleft().rows

    def _ended_early(self, why: Exception) -> CommandError:
        text = describe(why) if isinstance(why, OSError) else str(why)
        code = exit_code_of(why)
        if not self.rows:
            return (
                why
                if isinstance(why, CommandError)
                else CommandError(
                    f"{text}; no row is acknowledged: mend it, then run it again", code
                )
            )
        mend = "" if code == INTERRUPTED else "mend it, then "
        return CommandError(
            f"{text}; the first {self.prefix:,} rows are acknowledged{self._scattered()}: "
            f"{mend}go on with --skip-rows {self.prefix}",
            code,
        )

    def given_up(self) -> CommandError:
        """What is said when rows were left in flight."""
        return CommandError(
            f"interrupted; the first {self.prefix:,} rows are acknowledged{self._scattered()}, "
            f"those after them, up to row {self._read:,}, may or may not be written",
            INTERRUPTED,
        )

    def _scattered(self) -> str:
        beyond = self.rows - (self.prefix - self._skipped)
        return f" (and {beyond:,} scattered rows after them)" if beyond else ""
