"""A token knows which open wrote it: what an older one wrote above it is no part of the log."""

from __future__ import annotations

from walplane.backends.interface import Record, Start
from walplane.message import codec
from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.v1 import log_pb2
from walplane.testkit.wal_world import CH, entry, payloads_of
from walplane.wal.meter import Meters
from walplane.wal.scan.buffer import Signal, WriteAheadBuffer
from walplane.wal.scan.live import LivePosition
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.scan.scanner import WALScanner


class Records:
    """A log of which only the backend's records are left."""

    pchannel = CH
    backend_name = "memory"

    def __init__(self, *records: tuple[int, int, int, bytes]) -> None:
        self.buffer = WriteAheadBuffer(1000, 1 << 20)
        self.moved = Signal()
        self.meter = Meters().of(CH)
        self._records = [self._record(place, *each) for place, each in enumerate(records)]

    def _record(self, place: int, term: int, number: int, tick: int, payload: bytes) -> Record:
        item = entry(payload)
        item.envelope.first_tick, item.envelope.term = tick, term
        content = log_pb2.FrameContent(term=term, number=number)
        return Record((place,), codec.encode_frame(content.SerializeToString(), [item]))

    def live_position(self) -> LivePosition:
        return LivePosition(500, (len(self._records) - 1,), None)

    def watermark(self) -> int:
        return 500

    def last_appended(self) -> int:
        return 500

    def spans(self, _tick: int) -> bool:
        return False

    async def open_scanner(self, _start: Start) -> Records:
        return self

    async def read(self) -> list[Record]:
        return self._records

    async def close(self) -> None:
        pass


async def payloads_behind(token: ResumeToken, log: Records) -> list[bytes]:
    request = ScanRequest(ScanStart(StartKind.TOKEN, token), follow=False)
    async with WALScanner(log, request, lambda: None) as scanner:
        batch = await scanner.next()
    assert batch.end
    return payloads_of(list(batch.entries))


async def test_what_an_older_open_wrote_above_a_token_is_void() -> None:
    # The barrier that voids the first one lies before what is left of the topic.
    log = Records((1, 7, 40, b"void"), (2, 3, 30, b"valid"), (2, 4, 50, b"too"))
    place = MessageID("memory", (0,))
    assert await payloads_behind(ResumeToken(place, 20, 2, 0), log) == [b"valid", b"too"]
    assert log.meter.dropped["void"] == 1
    before = Records((1, 7, 10, b"read"), (1, 8, 15, b"read"), (2, 0, 30, b"valid"))
    assert await payloads_behind(ResumeToken(place, 20, 2, 0), before) == [b"valid"]
