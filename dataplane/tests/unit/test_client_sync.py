"""The blocking client: what runs on which thread, and how all of it ends."""

from __future__ import annotations

import asyncio
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from walplane.client import StreamingClient, SyncStreamingClient
from walplane.embedded import open_embedded_sync
from walplane.embedded.cluster import Cluster, ClusterOptions, start_cluster
from walplane.message.builder import MutableMessage, insert
from walplane.rpc.errors import ErrorCode, WalError


@pytest.fixture
def wal(tmp_path: Path) -> Iterator[SyncStreamingClient]:
    with open_embedded_sync(tmp_path, pchannels=1, backend="memory:") as wal:
        yield wal


@pytest.fixture
def vchannel(wal: SyncStreamingClient) -> str:
    return wal.create_collection("c").vchannels[0]


def rows(wal: SyncStreamingClient, vchannel: str) -> list[bytes]:
    return [each.payload for each in wal.read(vchannel) if each.type.name == "INSERT"]


@pytest.mark.parametrize("named", [False, True])
def test_a_generator_of_messages_runs_on_the_calling_thread(
    wal: SyncStreamingClient, vchannel: str, named: bool
) -> None:
    """It may call the client itself, which on the client's own thread would wait for ever."""
    iterated_by = set()

    def messages() -> Iterator[MutableMessage]:
        for number in range(3):
            iterated_by.add(threading.current_thread())
            yield insert(vchannel, b"%d" % number)

    if named:
        with wal.producer("loader", vchannel) as producer:
            producer.append_many(messages())
    else:
        wal.append_many(messages())
    assert iterated_by == {threading.current_thread()}
    assert rows(wal, vchannel) == [b"0", b"1", b"2"]


def test_what_is_asked_of_nodes_and_of_the_client_itself(tmp_path: Path) -> None:
    with open_embedded_sync(tmp_path, pchannels=1, backend="memory:") as wal:
        assignment = wal.wait_for_assignment("wal_0", timeout=10)
        assert assignment.address == wal.address
        assert list(wal.node_status()) == [wal.address]
        assert not wal.closed
        with pytest.raises(WalError, match="wal_7"):
            wal.wait_for_assignment("wal_7", timeout=0.01)
    assert wal.closed
    for call in (wal.topology, wal.node_status, wal.list_collections):
        with pytest.raises(WalError, match="the client is closed") as caught:
            call()
        assert caught.value.code is ErrorCode.ON_SHUTDOWN


def test_an_empty_name_of_a_directory_is_not_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WalError, match="no data directory"), open_embedded_sync("", pchannels=1):
        pass
    assert not list(tmp_path.iterdir())


GARBAGE = """
import gc, sys
from walplane.embedded import open_embedded_sync

class Job:
    pass

gc.disable()
with open_embedded_sync(sys.argv[1], pchannels=1, backend="memory:") as wal:
    vchannel = wal.create_collection("c").vchannels[0]
    job = Job()
    job.itself, job.rows = job, wal.read(vchannel)
    next(job.rows)
    del job
    wal._loop.call_soon_threadsafe(gc.collect)
    wal.list_collections()
    kept = wal.read(vchannel)
    next(kept)
del kept
print("ended")
"""


def printed(program: str, data: Path) -> list[str]:
    """The lines that a program prints, which ends in good order."""
    command = [sys.executable, "-c", program, str(data)]
    ran = subprocess.run(command, timeout=60, capture_output=True, text=True, check=True)
    assert not [each for each in ("Exception ignored", "never awaited") if each in ran.stderr]
    return ran.stdout.splitlines()


def test_a_read_that_is_garbage_holds_nobody_up_wherever_it_is_collected(tmp_path: Path) -> None:
    """On the thread of the loop, and behind the end of the client."""
    assert printed(GARBAGE, tmp_path) == ["ended"]


FORKED = """
import os, sys, walplane.rpc.errors as errors
from walplane.embedded import open_embedded_sync
from walplane.message.builder import insert

def told(call):
    try:
        call()
    except errors.WalError as error:
        print(error.code.name, "start processes by spawn" in str(error), flush=True)

with open_embedded_sync(sys.argv[1], pchannels=1, backend="memory:") as wal:
    vchannel = wal.create_collection("c").vchannels[0]
    reader = wal.reader(vchannel, follow=True)
    txn = wal.txn(vchannel)
    if (child := os.fork()) == 0:
        told(lambda: wal.append(insert(vchannel, b"of the child"), timeout=1))
        told(wal.topology)
        told(lambda: next(iter(reader)))
        told(txn.__enter__)
        told(wal.__enter__)
        reader.close()
    else:
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        wal.append(insert(vchannel, b"of the parent"))
print("ended", flush=True)
"""


def test_a_forked_process_is_told_and_ends(tmp_path: Path) -> None:
    """What the client runs on is not there: each call would wait for ever, and closing too."""
    refused = ["INVALID_ARGUMENT True"] * 5
    assert printed(FORKED, tmp_path) == [*refused, "ended", "child 0", "ended"]


def test_a_call_under_way_in_another_thread_ends_with_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    told: queue.Queue[WalError] = queue.Queue()

    async def never(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    def call(wal: SyncStreamingClient) -> None:
        try:
            wal.describe_collection("c")
        except WalError as error:
            told.put(error)

    monkeypatch.setattr(StreamingClient, "describe_collection", never)
    with open_embedded_sync(tmp_path, pchannels=1, backend="memory:") as wal:
        threading.Thread(target=call, args=(wal,), daemon=True).start()
        assert asked.wait(10)
        txn = wal.txn("wal_0_1v0")
    assert told.get(timeout=10).code is ErrorCode.OUTCOME_UNKNOWN
    with pytest.raises(WalError, match="the client is closed") as error:
        txn.commit()
    assert error.value.code is ErrorCode.ON_SHUTDOWN


def test_an_open_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(options: ClusterOptions, taken: AsyncExitStack) -> Cluster:
        await start_cluster(options, taken)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("walplane.embedded.program.start_cluster", interrupted)
    opening = open_embedded_sync(tmp_path, pchannels=1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), opening:
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    with open_embedded_sync(tmp_path, pchannels=1) as wal:
        assert wal.list_collections() == []
