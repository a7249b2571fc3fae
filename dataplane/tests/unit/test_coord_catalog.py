from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from walplane.channel import pchannel_of
from walplane.coord.background import Background
from walplane.coord.broadcast import Broadcasts
from walplane.coord.catalog import Catalog
from walplane.coord.settings import CoordSettings
from walplane.message.codec import check_entry, decode_body
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType, check_client_entry
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coordmeta_pb2, headers_pb2, log_pb2
from walplane.rpc.v1.coordmeta_pb2 import CatalogDelta, CollectionMeta
from walplane.runtime import Runtime
from walplane.testkit.waiting import until
from walplane.wal.ports import AppendResult

PCHANNELS = ["p_0", "p_1", "p_2", "p_3"]
CCHANNEL = "p_0_vcchan"
SETTINGS = CoordSettings(retry_s=(0.001, 0.01), broadcast_timeout_s=0.2)
PATIENCE = 10.0


class Wals:
    """Every PChannel's WAL, with idempotent producers; some refuse."""

    def __init__(self) -> None:
        self.log: dict[str, list[log_pb2.Entry]] = {}
        self.results: dict[tuple[bytes, str], AppendResult] = {}
        self.refuse: set[str] = set()
        self.lose_reply: set[str] = set()
        self.cut_off: set[str] = set()
        self.attempts: Counter[str] = Counter()
        self.tick = 100

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        await asyncio.sleep(0)
        envelope = entry.envelope
        check_client_entry(envelope)
        check_entry(entry)
        vchannel = envelope.vchannel
        self.attempts[vchannel] += 1
        if vchannel in self.refuse:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"{vchannel} is moving")
        if vchannel in self.cut_off:
            self.cut_off.discard(vchannel)
            raise asyncio.CancelledError
        assert envelope.producer.number == 0
        key = (envelope.producer.producer_id, vchannel)
        if key not in self.results:
            self.tick += 1
            envelope.first_tick = self.tick  # the owner stamps the entry it is given
            self.log.setdefault(vchannel, []).append(entry)
            position = MessageID("memory", (self.tick,))
            self.results[key] = AppendResult(position, self.tick, 1, None, 1, 1)
        if vchannel in self.lose_reply:
            self.lose_reply.discard(vchannel)
            raise WalError(ErrorCode.OUTCOME_UNKNOWN, "no answer")
        return self.results[key]

    def types(self, vchannel: str) -> list[int]:
        return [entry.envelope.type for entry in self.log.get(vchannel, [])]


class Coordinator:
    """A catalog and what changes it, over a log of deltas; `crash` and look at it again."""

    def __init__(self, wals: Wals, deltas: list[bytes] | None = None, term: int = 1) -> None:
        self.wals = wals
        self.deltas = deltas if deltas is not None else []
        self.catalog = Catalog("p")
        for delta in self.deltas:
            self.catalog.apply(delta)
        self.changes = 0
        self.unserved: set[str] = set()
        self.crashes: list[WalError] = []
        runtime = Runtime(lambda: 0, asyncio.get_running_loop().time, random.Random(1))  # noqa: S311
        self.broadcasts = Broadcasts(
            *(self, self.catalog, PCHANNELS, CCHANNEL, term, runtime, SETTINGS, self._changed),
            is_served=lambda pchannel: pchannel not in self.unserved,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def append(self, component: str, data: bytes) -> None:
        assert component == "catalog"
        await asyncio.sleep(0)
        self.deltas.append(data)
        self.catalog.apply(data)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        background = Background(self.crashes.append)
        background.start("catalog", self.broadcasts.run(self.wals))
        try:
            async with asyncio.timeout(PATIENCE):
                yield
        finally:
            await background.stop()
            assert not self.crashes

    def successor(self, term: int) -> Coordinator:
        return Coordinator(self.wals, list(self.deltas), term)


async def _until(wals: Wals, vchannel: str, attempts: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while wals.attempts[vchannel] < attempts:  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0.001)


async def test_a_collection_is_there_once_every_vchannel_and_the_cchannel_have_its_message() -> (
    None
):
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        made = await coordinator.broadcasts.create("flights", 3)
    assert [
        vchannel.endswith(f"_{made.collection_id}v{n}") for n, vchannel in enumerate(made.vchannels)
    ] == [True] * 3
    assert len({pchannel_of(vchannel) for vchannel in made.vchannels}) == 3
    assert set(coordinator.wals.log) == {*made.vchannels, CCHANNEL}
    assert made.created_tick == coordinator.wals.log[CCHANNEL][0].envelope.first_tick
    assert (made.schema_version, made.name) == (1, "flights")
    assert coordinator.catalog.by_name("flights") == made
    assert coordinator.catalog.collections() == [made]
    assert coordinator.changes >= 2


async def test_the_message_carries_header_keys_producer_and_coordinator_term() -> None:
    coordinator = Coordinator(Wals(), term=7)
    async with coordinator.running():
        made = await coordinator.broadcasts.create("flights", 2)
    for vchannel, (entry,) in coordinator.wals.log.items():
        envelope = entry.envelope
        assert (envelope.vchannel, envelope.type) == (vchannel, MessageType.CREATE_COLLECTION)
        assert envelope.collection_id == made.collection_id
        assert list(envelope.broadcast.vchannels) == [*made.vchannels, CCHANNEL]
        assert envelope.broadcast.coord_term == 7
        producer = f"broadcast/{envelope.broadcast.broadcast_id}".encode()
        assert envelope.producer.producer_id == producer
        assert [key.key for key in envelope.broadcast.resource_keys] == [
            "",
            "default",
            "default/flights",
        ]
        header = headers_pb2.CreateCollectionHeader.FromString(decode_body(entry.body)[0])
        assert header.collection_name == "flights"
        assert list(header.vchannels) == list(made.vchannels)
        assert list(header.partition_ids) == [made.default_partition_id]


async def test_a_refused_append_is_tried_until_it_succeeds_and_counted() -> None:
    wals = Wals()
    wals.refuse.add(CCHANNEL)
    coordinator = Coordinator(wals)
    async with coordinator.running():
        making = asyncio.create_task(coordinator.broadcasts.create("flights", 2))
        await _until(wals, CCHANNEL, 3)
        assert not making.done()
        assert coordinator.catalog.collections() == []
        with pytest.raises(WalError, match="no collection 'flights'"):
            coordinator.catalog.by_name("flights")
        wals.refuse.clear()
        await making
    assert coordinator.broadcasts.refusals == wals.attempts[CCHANNEL] - 1 >= 3
    assert all(len(entries) == 1 for entries in wals.log.values())


async def test_an_append_that_ends_cancelled_is_tried_again_and_ends_no_change() -> None:
    wals = Wals()
    wals.cut_off = {CCHANNEL}
    coordinator = Coordinator(wals)
    async with coordinator.running():
        await coordinator.broadcasts.create("flights", 2)
        await coordinator.broadcasts.create("others", 1)
    assert coordinator.broadcasts.refusals == 1


async def test_a_task_that_is_cut_off_is_told_and_one_that_is_stopped_is_not() -> None:
    crashes: list[WalError] = []
    background = Background(crashes.append)

    async def ends_cancelled() -> None:
        raise asyncio.CancelledError

    background.start("stays", asyncio.Event().wait())  # type: ignore[arg-type]
    background.start("catalog", ends_cancelled())
    await until(lambda: bool(crashes))
    await background.stop()
    assert ["catalog was cut off" in crash.message for crash in crashes] == [True]


async def test_a_lost_reply_never_makes_a_second_message() -> None:
    wals = Wals()
    wals.lose_reply = {CCHANNEL}
    coordinator = Coordinator(wals)
    async with coordinator.running():
        made = await coordinator.broadcasts.create("flights", 1)
    assert wals.attempts[CCHANNEL] == 2
    assert wals.types(CCHANNEL) == [MessageType.CREATE_COLLECTION]
    assert made.created_tick == wals.log[CCHANNEL][0].envelope.first_tick


async def test_a_change_that_is_pending_at_a_crash_is_completed_by_the_next_coordinator() -> None:
    wals = Wals()
    wals.refuse.add(CCHANNEL)
    first = Coordinator(wals)
    async with first.running():
        making = asyncio.create_task(first.broadcasts.create("flights", 2))
        waiting = asyncio.create_task(first.broadcasts.create("never", 1))
        await _until(wals, CCHANNEL, 2)
    with pytest.raises(WalError, match="what has begun is completed by the next one") as begun:
        await making
    assert begun.value.code is ErrorCode.OUTCOME_UNKNOWN
    with pytest.raises(WalError, match="ask the next one") as refused:
        await waiting
    assert refused.value.code is ErrorCode.ON_SHUTDOWN
    wals.refuse.clear()
    second = first.successor(term=2)
    assert len(second.catalog.tasks) == 1
    async with second.running():
        other = await second.broadcasts.create("other", 1)
    assert second.catalog.tasks == {}
    assert [each.name for each in second.catalog.collections()] == ["flights", "other"]
    flights = second.catalog.by_name("flights")
    for vchannel in flights.vchannels:
        assert wals.types(vchannel) == [MessageType.CREATE_COLLECTION]
    terms = [entry.envelope.broadcast.coord_term for entry in wals.log[CCHANNEL]]
    assert terms == [2, 2]
    assert other.collection_id > flights.default_partition_id > flights.collection_id


async def test_a_drop_frees_the_name_and_the_room_but_never_the_id() -> None:
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        first = await coordinator.broadcasts.create("flights", 4)
        dropped = await coordinator.broadcasts.drop("flights")
        assert dropped.collection_id == first.collection_id
        assert coordinator.catalog.loads().total() == 0
        second = await coordinator.broadcasts.create("flights", 4)
    assert second.collection_id > first.default_partition_id
    assert not set(first.vchannels) & set(second.vchannels)
    types = coordinator.wals.types(first.vchannels[0])
    assert types == [MessageType.CREATE_COLLECTION, MessageType.DROP_COLLECTION]
    again = coordinator.successor(term=2)
    assert again.catalog.collections() == [second]
    assert again.catalog.next_id > second.collection_id


async def test_new_vchannels_go_where_the_fewest_are() -> None:
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        for number in range(10):
            await coordinator.broadcasts.create(f"c{number}", 2)
    assert coordinator.catalog.loads() == dict.fromkeys(PCHANNELS, 5)


async def test_a_new_collection_does_not_wait_for_a_pchannel_that_is_away() -> None:
    coordinator = Coordinator(Wals())
    coordinator.unserved = {"p_0", "p_3"}
    async with coordinator.running():
        for number in range(3):
            await coordinator.broadcasts.create(f"c{number}", 2)
        assert coordinator.catalog.loads() == {"p_1": 3, "p_2": 3}
        coordinator.unserved.clear()
        await coordinator.broadcasts.create("later", 2)
    assert coordinator.catalog.loads() == dict(zip(PCHANNELS, (1, 3, 3, 1), strict=True))


async def test_of_two_that_make_the_same_at_once_the_second_is_told() -> None:
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        results = await asyncio.gather(
            *(coordinator.broadcasts.create("flights", 2) for _ in range(2)),
            return_exceptions=True,
        )
    assert not isinstance(results[0], BaseException)
    assert isinstance(results[1], WalError)
    assert results[1].code is ErrorCode.INVALID_ARGUMENT
    assert "already exists" in results[1].message


async def test_a_caller_that_goes_away_takes_back_only_what_has_not_begun() -> None:
    wals = Wals()
    wals.refuse.add(CCHANNEL)
    coordinator = Coordinator(wals)
    async with coordinator.running():
        begun = asyncio.create_task(coordinator.broadcasts.create("begun", 1))
        waiting = asyncio.create_task(coordinator.broadcasts.create("waiting", 1))
        await _until(wals, CCHANNEL, 1)
        for task in (begun, waiting):
            task.cancel()
        await asyncio.wait([begun, waiting])
        wals.refuse.clear()
        await coordinator.broadcasts.create("last", 1)
    assert [each.name for each in coordinator.catalog.collections()] == ["begun", "last"]


async def test_callers_that_went_away_hold_no_places_among_those_that_wait() -> None:
    wals = Wals()
    wals.refuse.add(CCHANNEL)
    coordinator = Coordinator(wals)
    async with coordinator.running():
        create = coordinator.broadcasts.create
        begun = asyncio.create_task(create("begun", 1))
        await _until(wals, CCHANNEL, 1)
        gone = [asyncio.create_task(create(f"gone{number}", 1)) for number in range(256)]
        await until(lambda: coordinator.broadcasts.pending == 257)
        with pytest.raises(WalError, match="256 changes to the catalog wait already") as caught:
            await create("one_more", 1)
        assert caught.value.code is ErrorCode.RESOURCE_ACQUIRED
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        assert coordinator.broadcasts.pending == 1
        last = asyncio.create_task(create("last", 1))
        await until(lambda: coordinator.broadcasts.pending == 2)
        wals.refuse.clear()
        await asyncio.gather(begun, last)
    assert [each.name for each in coordinator.catalog.collections()] == ["begun", "last"]


async def test_a_collection_that_is_not_there_is_named_with_the_way_out() -> None:
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        with pytest.raises(WalError, match=r"no collection 'fligths'.*walplane collection list"):
            await coordinator.broadcasts.drop("fligths")
    with pytest.raises(WalError) as caught:
        coordinator.catalog.by_name("fligths")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("name", "shards", "words"),
    [
        ("", 1, "is no collection name"),
        ("1st", 1, "is no collection name"),
        ("a b", 1, "is no collection name"),
        ("a/b", 1, "is no collection name"),
        ("a" * 256, 1, "at most 255"),
        ("p_7", 1, "is a channel's name"),
        ("p_0_12v1", 1, "is a channel's name"),
        ("flights", 0, "choose 1 to 256"),
        ("flights", 257, "choose 1 to 256"),
    ],
)
async def test_bad_requests_change_nothing(name: str, shards: int, words: str) -> None:
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        with pytest.raises(WalError, match=words) as caught:
            await coordinator.broadcasts.create(name, shards)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert coordinator.deltas == []


async def test_names_that_only_look_like_channels_of_others_are_taken() -> None:
    coordinator = Coordinator(Wals())
    async with coordinator.running():
        for name in ("flights_2013", "_x", "A-b.c"):
            await coordinator.broadcasts.create(name, 1)
    assert len(coordinator.catalog.collections()) == 3


def rebuilt(catalog: Catalog) -> Catalog:
    again = Catalog("p")
    for part in catalog.dump():
        again.apply(part)
        again.apply(part)
    return again


async def test_a_snapshot_holds_what_the_deltas_said() -> None:
    wals = Wals()
    coordinator = Coordinator(wals)
    async with coordinator.running():
        await coordinator.broadcasts.create("a", 2)
        await coordinator.broadcasts.create("b", 2)
        await coordinator.broadcasts.drop("a")
        assert rebuilt(coordinator.catalog).next_id == coordinator.catalog.next_id
        wals.refuse.add(CCHANNEL)
        making = asyncio.create_task(coordinator.broadcasts.create("c", 1))
        await _until(wals, CCHANNEL, wals.attempts[CCHANNEL] + 1)
    making.cancel()
    await asyncio.wait([making])
    again = rebuilt(coordinator.catalog)
    assert again.collections() == coordinator.catalog.collections()
    assert again.tasks == coordinator.catalog.tasks
    assert len(again.tasks) == 1
    assert again.next_id == coordinator.catalog.next_id
    assert again.loads() == coordinator.catalog.loads()


def test_loads_are_kept_through_every_state_and_not_counted_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog = Catalog("p")

    def change(ident: int, state: coordmeta_pb2.CollectionState) -> None:
        vchannels = [f"p_{shard}_{ident}v{shard}" for shard in range(ident)]
        collection = CollectionMeta(
            collection_id=ident, name=f"c{ident}", vchannels=vchannels, state=state
        )
        catalog.apply(CatalogDelta(collections=[collection]).SerializeToString())

    states = coordmeta_pb2.CollectionState
    alive = (states.COLLECTION_STATE_CREATING, states.COLLECTION_STATE_NORMAL)
    for ident in (1, 2, 3):
        for state in (*alive, alive[-1]):
            change(ident, state)
    change(2, states.COLLECTION_STATE_DROPPING)
    assert catalog.loads() == {"p_0": 3, "p_1": 2, "p_2": 1} == rebuilt(catalog).loads()
    for ident in (2, 3, 3):
        change(ident, states.COLLECTION_STATE_DROPPED)
    monkeypatch.delattr("walplane.coord.catalog.pchannel_of")
    assert catalog.loads() == {"p_0": 1}
    catalog.loads()["p_0"] += 7
    assert catalog.loads() == {"p_0": 1}, "what is given is the caller's own"
