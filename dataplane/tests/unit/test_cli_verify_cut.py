"""`walplane verify` of a log that its owner cuts off meanwhile: no damage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from walplane.backends.interface import RecordScanner, Start
from walplane.cli import verify
from walplane.cli.options import OutputFormat
from walplane.client import StreamingClient
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.wal_world import CH, EARLIEST, World, entry
from walplane.wal.audit.log import LogAudit
from walplane.wal.ports import LogEntry
from walplane.wal.scan.raw import RawScanner
from walplane.wal.scan.request import ScanRequest


async def test_a_raw_read_misses_nothing_that_is_cut_off_before_its_first_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = await world.open(1)
    results = [await wal.append(entry(b"%d" % number)) for number in range(6)]
    session = await world.backend.session()
    opening = wal.open_scanner

    async def open_and_cut(start: Start) -> RecordScanner:
        scanner = await opening(start)
        await session.truncate(CH, results[3].message_id.record)
        return scanner

    monkeypatch.setattr(wal, "open_scanner", open_and_cut)
    read: list[LogEntry] = []
    request = ScanRequest(EARLIEST, follow=False, raw=True)
    async with RawScanner(wal, request, wal.check) as scanner:
        while not (batch := await scanner.next()).end:
            read += batch.entries
        read += batch.entries
    assert [item.message_id for item in read][:3] == [each.message_id for each in results[3:]]


class Cut:
    """A client whose logs end as they are told."""

    def __init__(self, **ends: WalError | None) -> None:
        self._ends = ends

    async def entries(self, pchannel: str) -> AsyncIterator[Sequence[LogEntry]]:
        yield []
        error = self._ends[pchannel]
        if error is not None:
            raise error


CUT_OFF = WalError(ErrorCode.DATA_TRUNCATED, "it was cut off")
DAMAGED = WalError(ErrorCode.UNRECOVERABLE, "a record is damaged")


@pytest.mark.parametrize(
    ("ends", "code", "told"),
    [
        ({"a": None, "b": None}, 0, ""),
        ({"a": None, "b": CUT_OFF}, 2, "b was cut off while it was read"),
        ({"a": DAMAGED, "b": CUT_OFF}, 1, "damage a: a record is damaged"),
    ],
)
async def test_a_log_that_is_cut_off_where_it_is_read_is_not_verified_to_its_end(
    capsys: pytest.CaptureFixture[str], ends: dict[str, WalError | None], code: int, told: str
) -> None:
    cut_off: list[str] = []
    client = cast(StreamingClient, Cut(**ends))
    audits: list[LogAudit] = await verify._audit_all(client, list(ends), cut_off)
    assert verify._exit_code(audits, cut_off, OutputFormat.TABLE) == code
    shown = capsys.readouterr()
    assert told in shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == list(ends)
