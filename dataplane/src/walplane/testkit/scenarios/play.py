"""Plays a scenario file over the real WAL, in virtual time. Layer: testkit.

Contract: the same text comes of the same file. Ticks print as `milliseconds:logical`, positions as
`@record`, or `@record.entry` inside of a frame. The words:

    open N term=T          process N takes the log          crash N / close N
    append V a b [held]    one entry; held: it has ticks and waits until `release a`
    begin V T [keepalive=1s] · body T a · commit T · rollback T · whole V a b
    flush V · flush-all    exclusive appends
    lose-ack · no-word · not-written      what happens to the next record of the log: written and
                           nothing is told; written and reported as unknown; only the latter
    acks held · ack N      acknowledgements wait, until that of the N-th held record comes
    tail R [V] · resume R  a reader from the earliest on; again, from the token it kept
    read [V] [after=a]     to the present end, or what comes after the append a
    checkpoint · wait 1s · state
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from walplane.backends.memory import MemoryBackend
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn_view import AnyBatch, ImmutableTxnMessage
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.faulty import Fault, FaultyBackend
from walplane.testkit.outside import TestAuthority
from walplane.testkit.scenarios.owner import NAME, Owner, VirtualOracle
from walplane.testkit.scenarios.text import Block
from walplane.testkit.sim.judge import undisturbed
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.sim.process import Process
from walplane.testkit.txns import client_reader, creates, exclusive_entry, txn_entry
from walplane.testkit.wal_world import CH, entry
from walplane.ticks import TICKS_PER_MS
from walplane.wal.ports import AppendResult
from walplane.wal.wal import WAL

_SETTLE_S = 0.01
_FAULTS = {
    "lose-ack": Fault.LOSE_ACK,
    "no-word": Fault.FAIL_AFTER,
    "not-written": Fault.FAIL_BEFORE,
}
_ENDS = {"commit": MessageType.COMMIT_TXN, "rollback": MessageType.ROLLBACK_TXN}


def play(blocks: Iterable[Block]) -> list[Block]:
    """The blocks with what came of them."""
    loop = SimLoop(seed=0)
    with undisturbed():
        try:
            return loop.run(_play(loop, list(blocks)))
        finally:
            loop.close()


async def _play(loop: SimLoop, blocks: list[Block]) -> list[Block]:
    stage = Stage(loop)
    return [block._replace(came=await stage.happen(block.commands)) for block in blocks]


class Tail:
    """A reader that follows, and what it got since the last look."""

    def __init__(self, vchannel: str) -> None:
        """Has read nothing."""
        self.vchannel = vchannel
        self.token: ResumeToken | None = None
        self.watermark = 0
        self.got: list[str] = []
        self.task: asyncio.Task[None] | None = None


class Stage:
    """A log, its owners and readers."""

    def __init__(self, loop: SimLoop) -> None:
        """Nobody owns the log."""
        self._loop = loop
        self._backend = FaultyBackend(MemoryBackend())
        self._backend.faults = self._fault
        self._oracle, self._authority = VirtualOracle(), TestAuthority()
        self._owners: dict[str, Owner] = {}
        self._last = ""
        self._faults: list[Fault] = []
        self._acks: list[asyncio.Event] = []
        self._gates: dict[str, asyncio.Event] = {}
        self._results: dict[str, AppendResult] = {}
        self._txns: dict[str, tuple[str, int]] = {}
        self._tails: dict[str, Tail] = {}
        self._told: list[str] = []

    async def happen(self, commands: list[str]) -> list[str]:
        """Does what `commands` say; what was seen until all is quiet."""
        self._told = []
        pause = _SETTLE_S
        for command in commands:
            word, *rest = command.split()
            if word == "wait":
                pause += float(rest[0].removesuffix("s"))
                continue
            plain = [each for each in rest if "=" not in each]
            options = dict(each.split("=") for each in rest if "=" in each)
            self._do(word)(*plain, **options)
        await asyncio.sleep(pause)
        self._look_at_owners()
        self._look_at_tails()
        self._told += [f"FAILED: {what}: {error!r}" for what, error in self._loop.failures]
        return self._told

    def _do(self, word: str) -> Callable[..., None]:
        if word in _FAULTS:
            return partial(self._faults.append, _FAULTS[word])
        if word in _ENDS:
            return partial(self._end, word)
        do: Callable[..., None] | None = getattr(self, "_do_" + word.replace("-", "_"), None)
        if do is None:
            raise ValueError(f"nobody knows how to {word!r}")
        return do

    # --- owners ----------------------------------------------------------------------------------

    def _do_open(self, name: str, *, term: str) -> None:
        process = Process(self._loop, name, name, seed=len(self._owners))
        owner = Owner(process, self._backend, self._oracle, self._authority)
        self._owners[name], self._last = owner, name
        self._authority.terms[CH] = int(term)
        process.start(self._open(name, owner, int(term)))

    async def _open(self, name: str, owner: Owner, term: int) -> None:
        try:
            wal = await owner.open(term, self._gates)
        except WalError as error:
            self._told.append(f"{name}: cannot open, {error.code.name}")
            return
        wal.stopped.add_done_callback(partial(self._stopped, name))

    def _stopped(self, name: str, stopped: asyncio.Future[WalError | None]) -> None:
        reason = stopped.result()
        self._told.append(f"{name}: over, {reason.code.name if reason else 'closed'}")

    def _do_crash(self, name: str) -> None:
        self._owners[name].process.kill()
        self._owners[name].wal = None

    def _do_close(self, name: str) -> None:
        self._owners[name].process.start(self._wal(name).close())

    def _do_checkpoint(self) -> None:
        self._start(self._wal().checkpoint())

    def _do_state(self) -> None:
        wal = self._wal()
        open_txns = len(wal.recovery.txns.open)
        self._told.append(
            f"term {wal.term}, open {wal.open_number}, {wal.state}; checkpoint "
            f"{_tick(wal.recovery.checkpoint_tick)}, {open_txns} open transactions"
        )

    def _wal(self, name: str = "") -> WAL:
        wal = self._owners[name or self._last].wal
        if wal is None:
            raise ValueError(f"{name or self._last} does not own the log")
        return wal

    def _start(self, work: Coroutine[Any, Any, Any], on: str = "") -> None:
        self._owners[on or self._last].process.start(work)

    def _look_at_owners(self) -> None:
        for name, owner in self._owners.items():
            if owner.wal is None or owner.wal.stopped.done():
                continue
            wal, acks = owner.wal, owner.wal.acks
            opened = (wal.term, wal.open_number)
            if owner.seen[:1] != (opened,):
                again = f"open {wal.open_number} of term {wal.term}, {wal.replayed} replayed"
                self._told.append(f"{name}: {again}")
            seen = (opened, acks.watermark, acks.last_confirmed)
            if owner.seen != seen:
                confirmed = _place(acks.last_confirmed)
                self._told.append(
                    f"{name}: watermark {_tick(acks.watermark)}, LastConfirmed {confirmed}"
                )
            owner.seen = seen

    # --- appends ---------------------------------------------------------------------------------

    def _do_append(self, vchannel: str, *words: str, on: str = "") -> None:
        payloads = [word for word in words if word != "held"]
        if len(payloads) < len(words):
            self._gates[payloads[0]] = asyncio.Event()
        plain = entry(*_bytes(payloads), vchannel=f"{CH}_{vchannel}")
        self._append(" ".join(payloads), plain, on)

    def _do_release(self, name: str) -> None:
        self._gates[name].set()

    def _do_flush(self, vchannel: str) -> None:
        self._append(f"flush {vchannel}", exclusive_entry(f"{CH}_{vchannel}"))

    def _do_flush_all(self) -> None:
        self._append("flush-all", exclusive_entry(""))

    def _do_begin(self, vchannel: str, name: str, *, keepalive: str = "3600s") -> None:
        milliseconds = int(float(keepalive.removesuffix("s")) * 1000)
        full = f"{CH}_{vchannel}"
        begin = txn_entry(MessageType.BEGIN_TXN, full, keepalive_ms=milliseconds)

        def begun(result: AppendResult) -> None:
            self._txns[name] = (full, result.first_tick)

        self._append(f"begin {name}", begin, then=begun)

    def _do_body(self, name: str, *payloads: str) -> None:
        vchannel, txn = self._txns[name]
        body = txn_entry(MessageType.INSERT, vchannel, txn, *_bytes(payloads))
        self._append(" ".join(payloads), body)

    def _do_whole(self, vchannel: str, *payloads: str) -> None:
        full = f"{CH}_{vchannel}"
        whole = txn_entry(MessageType.INSERT, full, 0, *_bytes(payloads), whole=True)
        self._append(" ".join(payloads), whole)

    def _end(self, word: str, name: str) -> None:
        vchannel, txn = self._txns[name]
        self._append(f"{word} {name}", txn_entry(_ENDS[word], vchannel, txn))

    def _append(
        self,
        name: str,
        made: log_pb2.Entry,
        on: str = "",
        then: Callable[[AppendResult], None] = lambda _: None,
    ) -> None:
        made.envelope.properties[NAME] = name
        self._start(self._appending(name, self._wal(on), made, then), on)

    async def _appending(
        self, name: str, wal: WAL, made: log_pb2.Entry, then: Callable[[AppendResult], None]
    ) -> None:
        try:
            result = await wal.append(made)
        except WalError as error:
            self._told.append(f"{name}: {error.code.name}")
            return
        self._results[name] = result
        then(result)
        place = f"{_place(result.message_id)}, tick {_tick(result.first_tick)}"
        confirmed = _place(result.last_confirmed)
        self._told.append(f"{name}: acknowledged {place}, LastConfirmed {confirmed}")

    # --- the backend -----------------------------------------------------------------------------

    def _fault(self, topic: str) -> Fault:
        return self._faults.pop(0) if topic == CH and self._faults else Fault.NONE

    def _do_acks(self, _held: str) -> None:
        self._backend.before_ack = self._hold

    async def _hold(self) -> None:
        gate = asyncio.Event()
        self._acks.append(gate)
        await gate.wait()

    def _do_ack(self, number: str) -> None:
        self._acks[int(number) - 1].set()

    # --- readers ---------------------------------------------------------------------------------

    def _do_tail(self, name: str, vchannel: str = "") -> None:
        self._tails[name] = Tail(f"{CH}_{vchannel}" if vchannel else "")
        self._do_resume(name)

    def _do_resume(self, name: str) -> None:
        tail = self._tails[name]
        if tail.task is not None:
            tail.task.cancel()
        tail.task = self._loop.create_task(self._follow(tail))

    async def _follow(self, tail: Tail) -> None:
        reader = client_reader(self._wal(), tail.token, tail.vchannel)

        async def watch() -> None:
            while True:
                tail.watermark = max(tail.watermark, reader.watermark)
                await asyncio.sleep(_SETTLE_S / 4)

        watching = asyncio.ensure_future(watch())
        try:
            async for batch in reader.batches():
                if not creates(batch):
                    tail.got.append(_shown(batch))
                tail.token = reader.token
        except WalError as error:
            tail.got.append(error.code.name)
        finally:
            watching.cancel()

    def _look_at_tails(self) -> None:
        for name, tail in self._tails.items():
            if tail.got:
                all_up_to = f"all up to {_tick(tail.watermark)}"
                self._told.append(f"{name} reads {', '.join(tail.got)}; {all_up_to}")
                tail.got.clear()

    def _do_read(self, vchannel: str = "", *, after: str = "") -> None:
        self._loop.create_task(self._read(f"{CH}_{vchannel}" if vchannel else "", after))

    async def _read(self, vchannel: str, after: str) -> None:
        token = None
        if after:
            done = self._results[after]
            last = done.first_tick + done.count - 1
            token = ResumeToken(done.last_confirmed, last, done.term, done.open_number)
        reader = client_reader(self._wal(), token, vchannel, follow=False)
        got = [_shown(batch) async for batch in reader.batches() if not creates(batch)]
        self._told.append(f"read: {', '.join(got) or 'nothing'}")


def _bytes(words: Iterable[str]) -> list[bytes]:
    return [word.encode() for word in words]


def _tick(tick: int) -> str:
    return f"{tick // TICKS_PER_MS}:{tick % TICKS_PER_MS}"


def _place(place: MessageID | None) -> str:
    if place is None:
        return "the earliest"
    return f"@{place.record[0]}" + (f".{place.entry_index}" if place.entry_index else "")


def _shown(batch: AnyBatch) -> str:
    names = " ".join(payload.decode() for payload in batch.payloads)
    what = names or batch.type.name
    tick = _tick(batch.last_tick)
    return f"[{what}] {tick}" if isinstance(batch, ImmutableTxnMessage) else f"{what} {tick}"
