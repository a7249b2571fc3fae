"""Exactly once and in order, whatever the network and the node answer."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from walplane.client.batcher import Kind, Parcel, SendBatch
from walplane.client.config import ClientConfig
from walplane.client.pipeline import Next, Pipeline
from walplane.client.results import Written
from walplane.message.builder import insert
from walplane.message.codec import decode_body
from walplane.message.ids import MessageID
from walplane.message.registry import IDEMPOTENCY_KEY
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import log_pb2

VCHANNEL = "test_0_1v0"
BAD = b"bad"
WALL = WalError(ErrorCode.RESOURCE_ACQUIRED, "others have the lock")


def parcel(payload: bytes, *, keyed: bool = False) -> Parcel:
    message = insert(VCHANNEL, payload)
    if keyed:
        message = message.with_key(payload.decode())
    kind = Kind(message.envelope(), message.encoded_header(), merges=False)
    return Parcel(kind, [payload], len(payload))


def pipeline(**limits: int) -> Pipeline:
    ids = count()
    config = ClientConfig(**{"eager_batches": 100, "batches_in_flight": 100, **limits})
    return Pipeline(VCHANNEL, lambda: next(ids).to_bytes(16, "big"), config)


def at(position: int) -> Written:
    return Written(MessageID("memory", (position,)), position, None)


def entry_of(batch: SendBatch) -> log_pb2.Entry:
    entry = log_pb2.Entry()
    batch.fill(entry)
    return entry


@dataclass
class WindowNode:
    """The node's side of rules §13, for one VChannel."""

    log: list[bytes] = field(default_factory=list)
    windows: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    forgotten_tick: int = 0

    @property
    def settled_tick(self) -> int:
        return 1 + len(self.log)

    def forget(self) -> None:
        """Its bounds are exceeded: it knows no producer any more, and since when."""
        self.windows.clear()
        self.forgotten_tick = self.settled_tick

    def append(self, entry: log_pb2.Entry) -> Written | WalError:
        _, [payload] = decode_body(entry.body)
        if payload.startswith(BAD):
            return WalError(ErrorCode.INVALID_ARGUMENT, "refused before the log")
        key = entry.envelope.properties.get(IDEMPOTENCY_KEY)
        if key is not None:
            assert not entry.envelope.HasField("producer")
            if key not in self.keys:
                self.keys[key] = len(self.log)
                self.log.append(payload)
            return at(self.keys[key])
        producer = entry.envelope.producer
        window = self.windows.get(producer.producer_id)
        forgotten = producer.since_tick < self.forgotten_tick
        if window is None and (producer.number or forgotten):
            return WalError(ErrorCode.OUTCOME_UNKNOWN, "unknown producer")
        window = self.windows.setdefault(producer.producer_id, [])
        if producer.number < len(window):
            crc, position = window[producer.number]
            if crc != entry.body_crc32c:
                return WalError(ErrorCode.INVALID_ARGUMENT, "another payload under this number")
            return at(position)
        if producer.number > len(window):
            return WalError(ErrorCode.INVALID_REQUEST_SEQ, "a gap")
        window.append((entry.body_crc32c, len(self.log)))
        self.log.append(payload)
        return at(len(self.log) - 1)


class Net:
    """Streams between one pipeline and one node; old ones may go on after they broke."""

    def __init__(self, pipe: Pipeline, node: WindowNode) -> None:
        self.pipe = pipe
        self.node = node
        self.requests: deque[tuple[SendBatch, log_pb2.Entry]] = deque()
        self.answers: deque[tuple[SendBatch, Written | WalError]] = deque()
        self.zombies: deque[log_pb2.Entry] = deque()
        self.sent: Counter[bytes] = Counter()
        self.over: WalError | None = None  # a stream's log that has ended takes nothing more

    def send(self) -> bool:
        batch = self.pipe.next_batch(1 << 20, self.node.settled_tick)
        if batch is None:
            return False
        entry = entry_of(batch)
        self.requests.append((batch, entry))
        self.sent[decode_body(entry.body)[1][0]] += 1
        return True

    def serve(self, fault: WalError | None = None) -> bool:
        if not self.requests:
            return False
        batch, entry = self.requests.popleft()
        if batch.keyed:  # those with numbers need no such courtesy
            fault = fault or self.over
        self.answers.append((batch, fault or self.node.append(entry)))
        return True

    def fenced(self) -> bool:
        """The owner has changed, which the node tells all that it still gets."""
        self.over = WalError(ErrorCode.CHANNEL_FENCED, "another owner")
        return self.serve(self.over)

    def busy(self) -> bool:
        """The node turns a batch away for a while: one without a key, it has no reason else."""
        if not self.requests or self.requests[0][0].keyed:
            return False
        return self.serve(WalError(ErrorCode.RESOURCE_ACQUIRED, "too much in flight"))

    def waited_out(self) -> bool:
        """The node's lock is not to be had in the time of the callers."""
        if not self.requests or self.requests[0][0].sent > 1:
            return False
        self.requests[0][0].waited_out = True
        return self.serve(WALL)

    def answer(self) -> bool:
        if not self.answers:
            return False
        verdict = self.pipe.settle(*self.answers.popleft())
        if verdict.next is Next.RECONNECT:
            self.disconnect()
        elif verdict.next is Next.BACK_OFF:
            self.pipe.resume()
        return True

    def disconnect(self) -> None:
        left = [entry for batch, entry in self.requests if not (batch.keyed and self.over)]
        self.zombies.extend(left)
        self.requests.clear()
        self.answers.clear()
        self.over = None
        self.pipe.disconnected()

    def forget(self) -> None:
        self.node.forget()

    def zombie(self) -> None:
        """A request of a broken stream is read by the node after all."""
        if self.zombies:
            self.node.append(self.zombies.popleft())

    def settle_all(self) -> None:
        while self.send() or self.serve() or self.answer():
            pass


COMMON = ["offer", "keyed", "send", "serve"] * 2
RARE = ["bad keyed", "answer", "bad", "disconnect", "zombie", "busy", "fenced", "waited_out"]
ACTIONS = st.lists(st.sampled_from([*COMMON, *RARE]), max_size=120)


@settings(max_examples=250, deadline=None)
@given(ACTIONS)
def test_every_append_is_in_the_log_once_and_in_order(actions: list[str]) -> None:
    asyncio.run(_play(actions))


def _act(net: Net, actions: list[str]) -> list[Parcel]:
    parcels: list[Parcel] = []
    for action in actions:
        if action in ("offer", "bad", "keyed", "bad keyed"):
            prefix = BAD if action.startswith("bad") else b""
            payload = prefix + str(len(parcels)).encode()
            parcels.append(parcel(payload, keyed=action.endswith("keyed")))
            net.pipe.offer(parcels[-1])
        else:
            getattr(net, action)()
    return parcels


async def _play(actions: list[str]) -> None:
    node = WindowNode()
    pipe = pipeline()
    net = Net(pipe, node)
    parcels = _act(net, actions)
    net.settle_all()
    while net.zombies:
        net.zombie()
    good = [
        item
        for item in parcels
        if not item.payloads[0].startswith(BAD) and item.done.exception() is not WALL
    ]
    assert node.log == [item.payloads[0] for item in good]
    assert [item.done.result().first_tick for item in good] == list(range(len(good)))
    for item in parcels:
        if item not in good:
            error = item.done.exception()
            assert isinstance(error, WalError)
            assert error is WALL or error.code is ErrorCode.INVALID_ARGUMENT
    assert pipe.idle


async def test_what_a_broken_stream_still_holds_cannot_pass_for_what_was_numbered_anew() -> None:
    node = WindowNode()
    pipe = pipeline()
    net = Net(pipe, node)
    for payload in (BAD, b"second", b"third"):
        pipe.offer(parcel(payload))
        net.send()
    net.disconnect()
    for _ in range(3):  # sent again: the first is refused, and with it the others
        net.send()
        net.serve()
    while net.answer():
        pass
    net.send()
    net.serve()
    for _ in range(3):  # only now the node reads what the broken stream had sent
        net.zombie()
    net.settle_all()
    assert node.log == [b"second", b"third"]


FORGETFUL = st.lists(st.sampled_from([*COMMON, *RARE, "forget", "disconnect"]), max_size=120)


@settings(max_examples=250, deadline=None)
@given(FORGETFUL)
@example(["keyed", "send", "waited_out", "disconnect", "fenced"])
def test_a_forgetful_node_writes_nothing_twice_and_fails_nothing_that_it_got_once(
    actions: list[str],
) -> None:
    asyncio.run(_play_forgetful(actions))


async def _play_forgetful(actions: list[str]) -> None:
    node = WindowNode()
    pipe = pipeline()
    net = Net(pipe, node)
    parcels = _act(net, actions)
    net.settle_all()
    while net.zombies:
        net.zombie()
    assert pipe.idle
    assert node.log == sorted(set(node.log), key=int), "twice, or out of order"
    for item in parcels:
        [payload] = item.payloads
        error = item.done.exception()
        if error is None:
            assert node.log[item.done.result().first_tick] == payload
        elif payload.startswith(BAD) or error is WALL:
            assert payload not in node.log
        else:
            assert isinstance(error, WalError)
            assert error.code is ErrorCode.OUTCOME_UNKNOWN
            assert net.sent[payload] > 1


async def test_who_was_forgotten_while_idle_goes_on_without_an_error() -> None:
    node = WindowNode()
    pipe = pipeline()
    net = Net(pipe, node)
    for payloads in ((b"first",), (b"second", b"third", b"fourth")):
        for payload in payloads:
            pipe.offer(parcel(payload))
        net.settle_all()
        node.forget()
    assert node.log == [b"first", b"second", b"third", b"fourth"]
    assert pipe.idle


async def test_what_was_sent_before_is_in_doubt_once_the_node_forgot_it() -> None:
    node = WindowNode()
    pipe = pipeline()
    net = Net(pipe, node)
    doubtful, later = parcel(b"doubtful"), parcel(b"later")
    pipe.offer(doubtful)
    net.send()
    net.serve()  # written, and its answer is lost
    net.disconnect()
    node.forget()
    pipe.offer(later)
    net.settle_all()
    error = doubtful.done.exception()
    assert isinstance(error, WalError)
    assert error.code is ErrorCode.OUTCOME_UNKNOWN
    assert node.log == [b"doubtful", b"later"]
    assert later.done.result().first_tick == 1


async def test_a_node_that_knows_no_new_producer_is_asked_again_a_little_later() -> None:
    node = WindowNode(forgotten_tick=2)  # ahead of what it says is settled
    pipe = pipeline()
    pipe.offer(parcel(b"first"))
    batch = pipe.next_batch(4096, node.settled_tick)
    assert batch is not None
    verdict = pipe.settle(batch, node.append(entry_of(batch)))
    assert verdict.next is Next.BACK_OFF
    assert pipe.next_batch(4096, node.settled_tick) is None
    pipe.resume()
    batch = pipe.next_batch(4096, 2)
    assert batch is not None
    assert isinstance(node.append(entry_of(batch)), Written)


async def test_a_message_the_backend_cannot_hold_is_refused_alone() -> None:
    node = WindowNode()
    pipe = pipeline()
    small, large, after = parcel(b"small"), parcel(b"x" * 5000), parcel(b"after")
    for item in (small, large, after):
        pipe.offer(item)
    batches = []
    while (batch := pipe.next_batch(4096)) is not None:
        batches.append(batch)
    for batch in batches:
        pipe.settle(batch, node.append(entry_of(batch)))
    error = large.done.exception()
    assert isinstance(error, WalError)
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert VCHANNEL in error.message
    assert node.log == [b"small", b"after"]


async def test_a_message_that_no_entry_can_be_made_of_is_refused_alone() -> None:
    pipe, budget = pipeline(), ByteBudget(1000)
    view: Any = memoryview(b"gone")
    gone, after = Parcel(parcel(b"").kind, [view], len(view)), parcel(b"after")
    assert budget.try_acquire(gone.size)
    gone.budget = budget
    view.release()  # by the caller, while it waits
    for item in (gone, after):
        pipe.offer(item)
    batch = pipe.next_batch(4096)
    assert batch is not None
    assert decode_body(entry_of(batch).body)[1] == [b"after"]
    error = gone.done.exception()
    assert isinstance(error, WalError)
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert budget.used == 0


async def test_the_window_bounds_what_is_in_flight_and_small_batches_wait_for_company() -> None:
    pipe = pipeline(eager_batches=2, batches_in_flight=3, entry_messages=4)
    for number in range(3):
        pipe.offer(parcel(b"%d" % number))
    assert pipe.next_batch(4096) is not None
    assert pipe.next_batch(4096) is not None
    assert pipe.next_batch(4096) is None  # one small one: waits for an answer or for more
    for number in range(3):
        pipe.offer(parcel(b"%d" % number))
    assert pipe.next_batch(4096) is not None
    assert pipe.next_batch(4096) is None  # full


async def test_what_was_given_up_before_it_was_sent_is_not_sent() -> None:
    pipe = pipeline()
    given_up, wanted = parcel(b"given up"), parcel(b"wanted")
    pipe.offer(given_up)
    pipe.offer(wanted)
    given_up.give_up(WalError(ErrorCode.OUTCOME_UNKNOWN, "the caller has gone"))
    batch = pipe.next_batch(4096)
    assert batch is not None
    assert decode_body(entry_of(batch).body)[1] == [b"wanted"]
    assert given_up.done.cancelled()


async def test_closing_fails_everything_unanswered() -> None:
    pipe = pipeline()
    sent, waiting = parcel(b"sent"), parcel(b"waiting")
    pipe.offer(sent)
    assert pipe.next_batch(4096) is not None
    pipe.offer(waiting)
    closed = WalError(ErrorCode.OUTCOME_UNKNOWN, "closed")
    pipe.fail(closed)
    assert sent.done.exception() is closed
    assert waiting.done.exception() is closed
    assert pipe.idle


async def test_an_entry_shall_leave_once_enough_wait_and_the_window_has_room() -> None:
    pipe = pipeline(eager_messages=2, eager_batches=2)
    assert [pipe.offer(parcel(b"%d" % n)) for n in range(3)] == [False, True, True]
    assert pipe.next_batch(1000)
    assert pipe.next_batch(1000)
    assert [pipe.offer(parcel(b"full")) for _ in range(2)] == [False, False]


async def test_who_waited_too_long_once_is_not_refused_by_what_it_is_told_later() -> None:
    pipe = pipeline()
    for item in (before := parcel(b"before"), late := parcel(b"late")):
        pipe.offer(item)
    first, second = pipe.next_batch(4096), pipe.next_batch(4096)
    assert first is not None
    assert second is not None
    second.waited_out = True
    pipe.settle(second, WALL)
    pipe.disconnected()  # with no answer to the first one: what was sent before may be written
    assert [pipe.next_batch(4096) for _ in range(2)] == [first, second]
    pipe.settle(first, at(0))
    assert before.done.done()
    moved = WalError(ErrorCode.CHANNEL_FENCED, "another owner")
    assert pipe.settle(second, moved).next is Next.RECONNECT
    assert not late.done.done()


async def test_behind_a_batch_that_waits_for_the_others_nothing_is_woken() -> None:
    pipe = pipeline(eager_messages=1)
    assert [pipe.offer(parcel(b"%d" % n)) for n in range(2)] == [True, True]
    first, second = pipe.next_batch(1000), pipe.next_batch(1000)
    assert first is not None
    assert second is not None
    busy = WalError(ErrorCode.RESOURCE_ACQUIRED, "later")
    assert pipe.settle(first, busy).next is Next.GO_ON
    assert not pipe.offer(parcel(b"third"))


async def test_who_backs_off_is_not_woken_by_what_waits() -> None:
    pipe = pipeline(eager_messages=1)
    pipe.offer(parcel(b"first"))
    batch = pipe.next_batch(1000)
    assert batch is not None
    busy = WalError(ErrorCode.RESOURCE_ACQUIRED, "later")
    assert pipe.settle(batch, busy).next is Next.BACK_OFF
    assert not pipe.offer(parcel(b"second"))
    pipe.resume()
    assert pipe.offer(parcel(b"third"))
