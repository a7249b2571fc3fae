"""`walplane append`: standard input, one message a line. Layer: cli.

Contract: lines of one VChannel are appended in their order, and as many are in flight as the byte
budget allows. Each line ends in exactly one of two ways: acknowledged, or named on standard error
with its number. When its output cannot be written it ends as if it were asked to.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer

from walplane.channel import shard_of
from walplane.cli.errors import (
    FAILED,
    INTERRUPTED,
    CommandError,
    describe,
    exit_code_of,
    one_line,
)
from walplane.cli.interrupt import asked_to_end
from walplane.cli.keys import idempotency_key, json_object, key_bytes
from walplane.cli.lines import MAX_LINE_BYTES, Line, line_groups
from walplane.cli.options import (
    AddressOption,
    CollectionOption,
    DebugOption,
    OutputFormat,
    TimeoutOption,
    examples,
    settings_of,
)
from walplane.cli.output import StreamPrinter
from walplane.cli.progress import LineProgress
from walplane.cli.run import run
from walplane.client import (
    AppendResult,
    CollectionInfo,
    NamedProducer,
    PartialAppendError,
    StreamingClient,
)
from walplane.message.builder import MutableMessage, insert
from walplane.rpc.errors import WalError
from walplane.rpc.flow import ByteBudget

EXAMPLES = examples(
    "echo hello | walplane append --collection notes",
    "walplane append --collection orders --key customer -o json < orders.jsonl",
    "walplane append --collection orders --idempotency-key order_id < orders.jsonl",
    "walplane append --collection notes --producer notes.txt < notes.txt",
)
IN_FLIGHT_BYTES = 32 << 20
_PART_BYTES = 64 << 10
_PART_LINES = 1024
_LINE_OVERHEAD_BYTES = 256  # of a message in memory, so that short lines are bounded too
_WIDTHS = {"line": 8, "vchannel": 16, "time_tick": 18, "message_id": 20}


def _not_empty(name: str | None) -> str | None:
    if name == "":
        raise typer.BadParameter("a name has at least one character")
    return name


def append(
    context: typer.Context,
    collection: CollectionOption,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Lines are JSON objects; those of equal FIELD go to the same shard. "
            "Without it, lines go to the shards in turn.",
        ),
    ] = None,
    once_by: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="FIELD",
            help="Lines are JSON objects; one whose FIELD was appended before is not appended "
            "again, also by another run. Without --key, it decides the shard.",
        ),
    ] = None,
    producer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=_not_empty,
            help="Continues after what an earlier run under this name appended of the same "
            "input, exactly once, and ends that run if it is still at it.",
        ),
    ] = None,
    timeout: TimeoutOption = 60.0,
    output: Annotated[
        OutputFormat | None,
        typer.Option("--output", "-o", help="Print one object per acknowledged line."),
    ] = None,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Appends standard input, one message a line.

    Exit code 0: all acknowledged. 1: some were not; each is named on standard error with its
    line number. 2: wrong use.
    """
    settings = settings_of(context, address, debug)
    if producer is not None and once_by is not None:
        raise typer.BadParameter("a producer's name and idempotency keys: use one of them")

    async def command() -> int:
        async with (
            StreamingClient.connect(settings.address) as wal,
            AsyncExitStack() as producers,
        ):
            info = await wal.describe_collection(collection)
            printer = StreamPrinter(output, _WIDTHS) if output else None
            named = await _opened(wal, info, producer, timeout, producers)
            appender = LineAppender(wal, info, key, timeout, printer, once_by, named)
            with asked_to_end() as asked:
                try:
                    await appender.run(sys.stdin.fileno(), asked)
                except asyncio.CancelledError:
                    raise appender.given_up() from None
        appender.tell()
        if asked.is_set():
            raise appender.interrupted() from appender.unwritable
        return FAILED if appender.failed else 0

    run(settings, command)


class LineAppender:
    """Appends the lines of one file to one collection.

    Attributes:
        acknowledged: lines that are durable.
        failed: lines that are not, or not known to be.
        skipped: lines that an earlier run under the producer's name appended.
        taken: number of the last line that was taken; every line up to it has, or will have, its
            outcome.
        unwritable: why the output cannot be written any more.
    """

    def __init__(
        self,
        wal: StreamingClient,
        info: CollectionInfo,
        key: str | None,
        timeout_s: float,
        printer: StreamPrinter | None,
        once_by: str | None = None,
        named: Mapping[str, NamedProducer] | None = None,
        progress: LineProgress | None = None,
    ) -> None:
        """Appends nothing before `run`.

        Args:
            wal: the client.
            info: the collection.
            key: the field whose value decides the shard.
            timeout_s: seconds to wait for an acknowledgement.
            printer: of acknowledged lines.
            once_by: the field of the idempotency keys.
            named: open producers by VChannel; lines that they appended before are skipped.
            progress: is told whenever lines have their outcome, unless these run over a terminal.
        """
        self._named = named or {}
        self._behind = {vchannel: each.next_number for vchannel, each in self._named.items()}
        self.skipped = 0
        self.acknowledged = 0
        self.failed = 0
        self.taken = 0
        self.unwritable: OSError | None = None
        self._wal = wal
        self._info = info
        self._key = once_by if key is None else key  # '' is the name of a field, too
        self._once_by = once_by
        self._timeout_s = timeout_s
        self._printer = printer
        self._progress = progress or LineProgress()
        # rows that run over a terminal tell as much, and lines between them would be in the way
        self._tells = printer is None or not sys.stdout.isatty()
        self._budget = ByteBudget(IN_FLIGHT_BYTES)

    async def run(self, descriptor: int, asked: asyncio.Event) -> None:
        """Appends the lines of an open file until it ends, or `asked` is set.

        Output that cannot be written sets it, too. Returns when each line that was taken has its
        outcome.

        Raises:
            OSError: the file cannot be read on.
        """
        async with asyncio.TaskGroup() as tasks:
            async for group in _until(asked, line_groups(descriptor)):
                if self._named and self.failed:
                    break  # nothing behind it would be taken
                self.taken = group[-1].number
                for shard, found in self._by_shard(group).items():
                    lines = self._not_appended(self._info.vchannels[shard], found)
                    if not lines:
                        continue
                    size = sum(len(line.data or b"") + _LINE_OVERHEAD_BYTES for line in lines)
                    await self._budget.acquire(size)
                    tasks.create_task(self._append(self._info.vchannels[shard], lines, size, asked))

    def _not_appended(self, vchannel: str, lines: list[Line]) -> list[Line]:
        skip = min(self._behind.get(vchannel, 0), len(lines))
        if skip:
            self._behind[vchannel] -= skip
            self.skipped += skip
        return lines[skip:]

    def tell(self) -> None:
        """Says on standard error what did not go without saying."""
        if self.skipped:
            _complain(f"walplane: {self.skipped} lines were appended by an earlier run")
        if self.failed:
            total = self.failed + self.acknowledged
            text = f"walplane: {self.failed} of {total} lines were not acknowledged"
            # how many more there are is not known: the input may never end
            if self._named:
                text += (
                    f", and no line after line {self.taken}: mend what failed, then run it again "
                    "with the same input"
                )
            _complain(text)
        if self.unwritable and (why := describe(self.unwritable)):
            _complain(f"walplane: {why}")

    def interrupted(self) -> CommandError:
        """What is said once every line that was taken has its outcome."""
        return CommandError(
            f"interrupted after line {self.taken}: continue with line {self.taken + 1}",
            exit_code_of(self.unwritable) if self.unwritable else INTERRUPTED,
        )

    def given_up(self) -> CommandError:
        """What is said when lines were left in flight."""
        left = self.taken - self.acknowledged - self.failed
        return CommandError(
            f"interrupted after line {self.taken}: {self.acknowledged} lines are acknowledged, "
            f"{left} may or may not be written: tail the collection to find out",
            INTERRUPTED,
        )

    def _by_shard(self, group: Sequence[Line]) -> dict[int, list[Line]]:
        shards: dict[int, list[Line]] = defaultdict(list)
        for line in group:
            shard = self._shard(line)
            if shard is not None:
                shards[shard].append(line)
            elif self._named:
                self.taken = line.number  # nothing behind it: that would take its number
                break
        return shards

    def _shard(self, line: Line) -> int | None:
        """The shard of a line; None when it cannot be a message, which is told."""
        count = len(self._info.vchannels)
        if line.data is None:
            self._fail(line, f"longer than {MAX_LINE_BYTES >> 20} MiB")
            return None
        if self._key is None:
            return (line.number - 1) % count
        field = self._key
        try:
            record = json_object(line.data)
            shard = shard_of(key_bytes(record[field]), count)
            if self._once_by is not None:
                field = self._once_by
                idempotency_key(record[field])
        except KeyError:
            self._fail(line, f"no key {field!r}: it has no such field")
        except ValueError as error:
            self._fail(line, f"no key {field!r}: {error}")
        else:
            return shard
        return None

    async def _append(
        self, vchannel: str, lines: Sequence[Line], size: int, asked: asyncio.Event
    ) -> None:
        parts = list(_parts(lines) if self._once_by is None else ([line] for line in lines))
        messages = [self._message(vchannel, part) for part in parts]
        outcomes: Sequence[AppendResult | WalError]
        try:
            to = self._named.get(vchannel, self._wal)
            outcomes = await to.append_many(messages, timeout=self._timeout_s)
        except PartialAppendError as error:
            outcomes = error.outcomes
        except WalError as error:  # nothing of it was sent
            outcomes = [error] * len(parts)
        done: list[dict[str, Any]] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, WalError):
                for line in part:
                    self._fail(line, str(outcome))
                continue
            self.acknowledged += len(part)
            if self._printer:
                done += (_row(line, outcome, i, vchannel) for i, line in enumerate(part))
        if self._tells:
            self._progress.update(self._so_far)
        if done and not await self._written(done):
            asked.set()
        self._budget.release(size)  # only now: a slow reader of the output bounds what is read

    async def _written(self, done: Sequence[dict[str, Any]]) -> bool:
        """Prints what is acknowledged, unless nothing can be printed."""
        if self._printer and self.unwritable is None:
            try:
                await self._printer.write(done)
            except OSError as error:
                self.unwritable = error
        return self.unwritable is None

    def _so_far(self) -> str:
        return f"{self.acknowledged:,} lines acknowledged, {self.failed:,} failed"

    def _message(self, vchannel: str, lines: Sequence[Line]) -> MutableMessage:
        message = insert(
            vchannel,
            *(line.data or b"" for line in lines),
            collection_id=self._info.collection_id,
            partition_id=self._info.default_partition_id,
            schema_version=self._info.schema_version,
        )
        if self._once_by is None:
            return message
        return message.with_key(idempotency_key(json_object(lines[0].data or b"")[self._once_by]))

    def _fail(self, line: Line, why: str) -> None:
        self.failed += 1
        _complain(f"line {line.number}: {one_line(why)}")


async def _opened(
    wal: StreamingClient,
    info: CollectionInfo,
    name: str | None,
    timeout_s: float,
    until: AsyncExitStack,
) -> dict[str, NamedProducer]:
    """The producers of `name`, by VChannel, open `until` then; none without a name."""
    if name is None:
        return {}
    return {
        vchannel: await until.enter_async_context(wal.producer(name, vchannel, timeout=timeout_s))
        for vchannel in info.vchannels
    }


async def _until(
    asked: asyncio.Event, groups: AsyncIterator[list[Line]]
) -> AsyncIterator[list[Line]]:
    """The groups that come before `asked` is set; none is taken and left."""
    asking = asyncio.create_task(asked.wait())
    waiting: set[asyncio.Future[Any]] = {asking}
    try:
        while True:
            following = asyncio.ensure_future(anext(groups, None))
            waiting = {asking, following}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if asked.is_set() or (group := following.result()) is None:
                return
            yield group
    finally:
        for each in waiting:
            each.cancel()


def _parts(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Neighbours that are appended, and fail, together: small, so that all are of a legal size."""
    part: list[Line] = []
    size = 0
    for line in lines:
        length = len(line.data or b"")
        if part and (size + length > _PART_BYTES or len(part) == _PART_LINES):
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    yield part


def _row(line: Line, first: AppendResult, offset: int, vchannel: str) -> dict[str, Any]:
    """A line's result: the `offset`-th of the messages that were appended together."""
    message_id = first.message_id
    place = message_id._replace(message_index=message_id.message_index + offset)
    return {
        "line": line.number,
        "message_id": str(place),
        "time_tick": first.time_tick + offset,
        "vchannel": vchannel,
    }


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
