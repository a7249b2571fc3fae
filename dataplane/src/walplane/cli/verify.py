"""`walplane verify`: whether the logs of a cluster keep their own rules. Layer: cli.

Contract: reads each PChannel once, from its earliest entry to its present end, and changes nothing.
Exit codes: 0 no violation, 1 violations, 2 the cluster or a PChannel could not be read, or not to
its end, since it was cut off meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from walplane.channel import pchannel_of
from walplane.cli.completion import collection_names, pchannel_names
from walplane.cli.errors import FAILED, CommandError, one_line
from walplane.cli.options import (
    AddressOption,
    DebugOption,
    OutputFormat,
    OutputOption,
    examples,
    settings_of,
)
from walplane.cli.output import show_rows
from walplane.cli.run import run
from walplane.client import StreamingClient
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.audit.log import LogAudit

EXAMPLES = examples(
    "walplane verify",
    "walplane verify --collection flights -o json",
    "walplane verify --pchannel wal_3 --pchannel wal_4",
)
UNREACHABLE = 2
_COLUMNS = (
    *("pchannel", "entries", "messages", "bytes", "first_tick", "last_tick"),
    *("open_transactions", "violations"),
)
_AT_ONCE = 4  # logs; each holds what is on its way to this process
_LINE_EVERY_S = 2.0


def verify(
    context: typer.Context,
    collection: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only the PChannels that this collection lies on.",
            autocompletion=collection_names,
        ),
    ] = None,
    pchannel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PCHANNEL",
            help="Only this PChannel; may be given several times.",
            autocompletion=pchannel_names,
        ),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Reads whole logs and checks that they keep the rules of a log.

    Ticks are unique, ids grow, owners follow each other, watermarks and LastConfirmed hold,
    producers' batches are there once and without a gap, transactions are whole. Exit code 1 when
    something is wrong, each thing one line; 2 when the logs cannot be read to their ends.
    """
    settings = settings_of(context, address, debug)
    cut_off: list[str] = []

    async def command() -> int:
        try:
            async with StreamingClient.connect(settings.address) as wal:
                targets = await _targets(wal, collection, pchannel or ())
                audits = await _audit_all(wal, targets, cut_off)
        except WalError as error:
            raise CommandError(f"not verified: {error}", UNREACHABLE) from error
        return _exit_code(audits, cut_off, output)

    run(settings, command)


async def _targets(
    wal: StreamingClient, collection: str | None, pchannels: Sequence[str]
) -> list[str]:
    there = sorted(wal.topology().assignments, key=lambda each: (len(each), each))
    if collection is None and not pchannels:
        return there
    wanted = set(pchannels)
    if collection is not None:
        info = await wal.describe_collection(collection)
        wanted |= {pchannel_of(each) for each in info.vchannels}
    for unknown in sorted(wanted - set(there)):
        raise CommandError(f"there is no PChannel {unknown}: see `walplane topology`", UNREACHABLE)
    return [each for each in there if each in wanted]


async def _audit_all(
    wal: StreamingClient, pchannels: Sequence[str], cut_off: list[str]
) -> list[LogAudit]:
    """Audits each; `cut_off` is given those that could not be read to their ends."""
    audits = [LogAudit(each) for each in pchannels]
    turns = asyncio.Semaphore(_AT_ONCE)
    telling = asyncio.create_task(_tell(audits))
    try:
        async with asyncio.TaskGroup() as tasks:
            for audit in audits:
                tasks.create_task(_audit(wal, audit, turns, cut_off))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        telling.cancel()
    return audits


async def _audit(
    wal: StreamingClient, audit: LogAudit, turns: asyncio.Semaphore, cut_off: list[str]
) -> None:
    async with turns:
        try:
            async for piece in wal.entries(audit.pchannel):
                for item in piece:
                    audit.take(item)
                await asyncio.sleep(0)
        except WalError as error:
            if error.code is ErrorCode.DATA_TRUNCATED:  # by its owner, behind what is stored
                cut_off.append(audit.pchannel)
                return
            if error.code is not ErrorCode.UNRECOVERABLE:
                raise
            audit.damaged(error)
        audit.finish()


async def _tell(audits: Sequence[LogAudit]) -> None:
    """How far it is, now and then, for what takes longer than a moment."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_EVERY_S)
        messages = sum(each.messages for each in audits)
        size = sum(each.bytes for each in audits) / 1e6
        rate = messages / (time.monotonic() - began)
        text = f"{messages:,} messages, {size:,.0f} MB checked, {rate:,.0f} messages/s"
        print(text, file=sys.stderr, flush=True)


def _show(audits: Sequence[LogAudit], output: OutputFormat) -> int:
    """Prints the result; gives the exit code."""
    found = sum(each.found for each in audits)
    show_rows([_row(each, output) for each in audits], _COLUMNS, output)
    if not found:
        return 0
    for audit in audits:
        for violation in audit.violations:
            print(f"walplane: {one_line(violation)}", file=sys.stderr)
        if audit.found > len(audit.violations):
            more = audit.found - len(audit.violations)
            print(f"walplane: {audit.pchannel}: {more} more violations", file=sys.stderr)
    return FAILED


def _exit_code(audits: Sequence[LogAudit], cut_off: Sequence[str], output: OutputFormat) -> int:
    """Prints the result, and which logs were not read to their ends; gives the exit code."""
    code = _show(audits, output)
    for each in sorted(cut_off):
        text = f"not verified to its end: {each} was cut off while it was read: verify it again"
        print(f"walplane: {text}", file=sys.stderr)
    return code or (UNREACHABLE if cut_off else 0)


def _row(audit: LogAudit, output: OutputFormat) -> Mapping[str, Any]:
    counted = output is OutputFormat.TABLE
    return {
        "pchannel": audit.pchannel,
        "entries": audit.entries,
        "messages": audit.messages,
        "bytes": audit.bytes,
        "first_tick": audit.first_tick,
        "last_tick": audit.last_tick,
        "open_transactions": audit.open_transactions,
        "violations": audit.found if counted else audit.violations,
    }
