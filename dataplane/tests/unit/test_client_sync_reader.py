"""A reader and a repeated transaction of the blocking client."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from walplane.client import ClientConfig, SyncReader, SyncStreamingClient, SyncTxn
from walplane.client.reader import Reader
from walplane.client.sync_reader import _Pulled
from walplane.embedded import open_embedded_sync
from walplane.message.builder import insert
from walplane.message.txn_view import AnyBatch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.tracing import Tracing


@pytest.fixture
def wal(tmp_path: Path) -> Iterator[SyncStreamingClient]:
    with open_embedded_sync(tmp_path, pchannels=1, backend="memory:") as wal:
        yield wal


@pytest.fixture
def vchannel(wal: SyncStreamingClient) -> str:
    """With five rows: one alone, and four that lie in one entry."""
    vchannel = wal.create_collection("c").vchannels[0]
    wal.append(insert(vchannel, b"0"))
    wal.append_many([insert(vchannel, b"%d" % number) for number in range(1, 5)])
    return vchannel


def rows(reader: SyncReader) -> list[bytes]:
    return [each.payload for each in reader if each.type.name == "INSERT"]


def up_to(reader: SyncReader, payload: bytes) -> None:
    for message in reader:
        if message.payload == payload:
            return
    raise AssertionError(payload)


def test_a_reader_goes_on_where_an_iteration_was_broken_off(
    wal: SyncStreamingClient, vchannel: str
) -> None:
    with wal.reader(vchannel) as reader:
        up_to(reader, b"2")
        assert rows(reader) == [b"3", b"4"]


def test_batches_go_on_behind_a_batch_that_was_given_in_part(
    wal: SyncStreamingClient, vchannel: str
) -> None:
    with wal.reader(vchannel) as reader:
        up_to(reader, b"1")
        assert list(reader.batches()) == []
        wal.append(insert(vchannel, b"5"))
        [batch] = reader.batches()
        assert batch.payloads == [b"5"]


def test_another_reader_goes_on_from_the_token(wal: SyncStreamingClient, vchannel: str) -> None:
    with wal.reader(vchannel) as reader:
        assert reader.token is None
        assert rows(reader) == [b"0", b"1", b"2", b"3", b"4"]
        token, watermark = reader.token, reader.watermark
    assert token is not None
    last = wal.append(insert(vchannel, b"5"))
    assert token.time_tick <= watermark < last.time_tick
    with wal.reader(vchannel, start=token) as reader:
        assert rows(reader) == [b"5"]


def test_a_read_begins_behind_a_message_too(wal: SyncStreamingClient, vchannel: str) -> None:
    place = wal.append(insert(vchannel, b"5")).message_id
    wal.append(insert(vchannel, b"6"))
    for after, expected in ((False, [b"5", b"6"]), (True, [b"6"])):
        read = wal.read(vchannel, start=place, after=after)
        assert [each.payload for each in read] == expected
        batches = wal.batches(vchannel, start=place, after=after)
        assert [payload for batch in batches for payload in batch.payloads] == expected


def test_patience_is_what_a_read_waits_without_an_answer(
    wal: SyncStreamingClient, vchannel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Reader) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Reader, "_connect", never)
    for read in (wal.read, wal.batches):
        with pytest.raises(WalError, match=r"nobody answered a read of \S+ for 0.01 s"):
            list(read(vchannel, patience=0.01))


@pytest.mark.parametrize("taken", [1, 3])  # between two entries, and in the middle of one
def test_two_iterations_at_once_are_refused(
    wal: SyncStreamingClient, vchannel: str, taken: int
) -> None:
    with wal.reader(vchannel) as reader:
        first = iter(reader)
        for _ in range(taken):
            next(first)
        next(iter(reader))
        with pytest.raises(WalError, match="iterated twice at once") as caught:
            next(first)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_read_under_way_in_another_thread_ends_with_its_reader(
    wal: SyncStreamingClient, vchannel: str
) -> None:
    got: queue.Queue[bytes | None] = queue.Queue()
    reader = wal.reader(vchannel, follow=True)

    def follow() -> None:
        for message in reader:
            got.put(message.payload)
        got.put(None)

    threading.Thread(target=follow, daemon=True).start()
    while got.get(timeout=10) != b"4":
        pass
    with pytest.raises(WalError, match="iterated twice at once"):
        next(reader.batches())
    reader.close()
    assert got.get(timeout=10) is None
    assert list(reader) == []


def test_a_reader_is_left_after_its_client(tmp_path: Path) -> None:
    with ExitStack() as later:
        with open_embedded_sync(tmp_path, pchannels=1, backend="memory:") as wal:
            vchannel = wal.create_collection("c").vchannels[0]
            reader = later.enter_context(wal.reader(vchannel, follow=True))
            given = reader.batches()
            next(given)
        with pytest.raises(WalError, match="the client is closed"):
            next(given)
    reader.close()


def test_an_interrupted_read_is_gone_on_with(
    wal: SyncStreamingClient, vchannel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at once, while what was interrupted still comes to its end on the client's thread."""
    waits = threading.Event()
    piece = Reader._piece

    async def interrupted(reader: Reader) -> object:
        if reader.token is not None and reader.watermark and not waits.is_set():
            waits.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.Event().wait()
        return await piece(reader)

    monkeypatch.setattr(Reader, "_piece", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    got: list[AnyBatch] = []
    try:
        with wal.reader(vchannel, follow=True) as reader:
            with pytest.raises(KeyboardInterrupt):
                got.extend(reader.batches())
            wal.append(insert(vchannel, b"5"))
            assert next(reader.batches()).payloads == [b"5"]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [1, 2, 3])  # alone, four in an entry, a transaction
def test_a_batch_that_arrives_as_a_read_is_interrupted_comes_again(
    wal: SyncStreamingClient, vchannel: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with wal.txn(vchannel) as txn:
        for payload in (b"a", b"b"):
            txn.append(insert(vchannel, payload))
            txn.flush()
    arrived = iter(range(number + 1))
    heard = threading.Event()
    pull = _Pulled.next

    async def interrupted(pulled: _Pulled) -> AnyBatch | None:
        batch = await pull(pulled)
        if next(arrived, None) == number:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            heard.wait(10)
        return batch

    def hear(*_: object) -> None:
        heard.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(_Pulled, "next", interrupted)
    before = signal.signal(signal.SIGINT, hear)
    got: list[bytes] = []
    try:
        with wal.reader(vchannel) as reader:
            with pytest.raises(KeyboardInterrupt):
                got.extend(each.payload for each in reader if each.type.name == "INSERT")
            with wal.reader(vchannel, start=reader.token or "earliest") as other:
                rest = rows(other)
            assert got + rest == [b"0", b"1", b"2", b"3", b"4", b"a", b"b"]
            assert rows(reader) == rest
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_transaction_is_filled_on_the_calling_thread_until_it_commits(
    wal: SyncStreamingClient, vchannel: str
) -> None:
    threads: list[threading.Thread] = []

    def fill(txn: SyncTxn) -> int:
        threads.append(threading.current_thread())
        txn.append_many([insert(vchannel, b"a"), insert(vchannel, b"b")])
        assert wal.list_collections()  # on the client's own thread it would wait for ever
        if len(threads) < 3:
            raise WalError(ErrorCode.TRANSACTION_EXPIRED, "ended from elsewhere")
        return len(threads)

    assert wal.run_txn(vchannel, fill) == 3
    assert set(threads) == {threading.current_thread()}
    with wal.reader(vchannel) as reader:
        up_to(reader, b"4")
        assert rows(reader) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("code", "timeout"),
    [(ErrorCode.TRANSACTION_EXPIRED, 0.001), (ErrorCode.OUTCOME_UNKNOWN, None)],
)
def test_a_transaction_is_not_repeated_too_late_or_after_anything_else(
    wal: SyncStreamingClient, vchannel: str, code: ErrorCode, timeout: float | None
) -> None:
    fills = 0

    def fill(_: SyncTxn) -> None:
        nonlocal fills
        fills += 1
        raise WalError(code, "so it ended")

    with pytest.raises(WalError, match="so it ended"):
        wal.run_txn(vchannel, fill, timeout=timeout)
    assert fills == 1


def test_a_pause_between_attempts_ends_with_the_client(tmp_path: Path) -> None:
    told: queue.Queue[WalError] = queue.Queue()
    filled = threading.Event()

    def fill(_: SyncTxn) -> None:
        filled.set()
        raise WalError(ErrorCode.TRANSACTION_EXPIRED, "ended from elsewhere")

    def run(wal: SyncStreamingClient) -> None:
        try:
            wal.run_txn("wal_0_1v0", fill, timeout=3600)
        except WalError as error:
            told.put(error)

    config = ClientConfig(backoff_min_s=600, backoff_max_s=600)
    with open_embedded_sync(tmp_path, pchannels=1, backend="memory:", config=config) as wal:
        threading.Thread(target=run, args=(wal,), daemon=True).start()
        assert filled.wait(10)
    assert told.get(timeout=10).code is ErrorCode.ON_SHUTDOWN


def test_a_client_is_entered_once(tmp_path: Path) -> None:
    wal = open_embedded_sync(tmp_path, pchannels=1, backend="memory:")
    with wal:
        with pytest.raises(WalError, match="this client was entered before") as caught, wal:
            pass
        assert wal.list_collections() == [], "it goes on"
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(WalError, match="this client was entered before"), wal:
        pass


def test_spans_go_where_connect_says(wal: SyncStreamingClient, vchannel: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with (
        SyncStreamingClient.connect(wal.address, tracing=Tracing(provider)) as traced,
        provider.get_tracer("test").start_as_current_span("program"),
    ):
        traced.append(insert(vchannel, b"5"))
    spans = {each.name: each for each in exporter.get_finished_spans()}
    parent, program = spans["wal.autocommit"].parent, spans["program"].context
    assert parent is not None
    assert program is not None
    assert parent.span_id == program.span_id
