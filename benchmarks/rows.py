"""The rows: what is measured, against what, and what has to be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import growth, peers, reading, recovery
from benchmarks.model import VALUE, Pair, Row, Sample, Setting, Target
from benchmarks.sides import Start, on_disk, unused, walplane, walplane_in_process
from benchmarks.system import broker, load, standalone

_APPENDERS = 256
_FLOOD, _SINGLES, _CONCURRENT, _SYNC = "flood", "singles", "concurrent", "sync"
_TUNED = "pulsar-client `send_async`, one producer, batches of up to 1000 messages, 1 MiB, 1 ms"


def _on_pulsar(name: str, mode: str, size: int, reference_mode: str | None = None) -> Start:
    """Node and reference on one broker; each round has topic or collection of its own.

    Args:
        name: of the row.
        mode: how messages are handed over.
        size: of a message, bytes.
        reference_mode: how the reference gets them, if it has no such mode.
    """

    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with broker() as pulsar, standalone(setting, name, pulsar.backend) as node:

            def reference(seconds: float) -> Sample:
                arguments = [reference_mode or mode, "--url", pulsar.service, "--topic"]
                arguments += [pulsar.topic(unused("reference-")), "--size", str(size)]
                arguments += ["--concurrency", str(_APPENDERS)]
                return load("pulsar_client", *arguments, seconds=seconds)

            versions = {"pulsar broker": pulsar.version()}
            yield Pair(walplane(node, mode, size, _APPENDERS), reference, versions)

    return start


def _embedded(name: str, mode: str, disk_mode: str, size: int) -> Start:
    """Node and reference on one disk."""

    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with standalone(setting, name, None) as node:
            reference = on_disk("disk", disk_mode, setting, "--size", str(size), "--data")
            yield Pair(walplane(node, mode, size), reference)

    return start


def _in_process(mode: str, disk_mode: str, size: int) -> Start:
    """The same with coordinator, node and client in one process."""

    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        yield Pair(
            walplane_in_process(setting, mode, size),
            on_disk("disk", disk_mode, setting, "--size", str(size), "--data"),
        )

    return start


def _sync_embedded(name: str, what: str, start: Start) -> Row:
    return Row(
        name=name,
        what=what,
        reference="RocksDB's own put of the same bytes, synced, in process.",
        unit="ms",
        higher_is_better=False,
        targets={"p50": Target(None, 3, 2)},
        start=start,
    )


def _pulsar_append(name: str, size: int, text: str, target: Target) -> Row:
    return Row(
        name=name,
        what=f"messages of {text} appended and acknowledged, one PChannel, real Pulsar, client → "
        "gRPC → node → Pulsar, `append_many`, 1000 payloads to a message object.",
        reference=f"{_TUNED}.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: target},
        start=_on_pulsar(name, _FLOOD, size),
    )


ROWS = (
    _pulsar_append("append-pulsar-128B", 128, "128 B", Target(5, 8, 20)),
    _pulsar_append("append-pulsar-1KiB", 1024, "1 KiB", Target(2, 2.5, 5)),
    Row(
        name="append-pulsar-singles-128B",
        what="the same with 128 B messages, a message object for each payload.",
        reference=f"{_TUNED}.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: Target(None, 8, 20)},
        start=_on_pulsar("append-pulsar-singles-128B", _SINGLES, 128, _FLOOD),
    ),
    Row(
        name="append-pulsar-concurrent-256",
        what=f"the same with 1 KiB messages from {_APPENDERS} concurrent appenders, each of which "
        "awaits the acknowledgement of its message before it appends the next.",
        reference=f"{_TUNED}; {_APPENDERS} messages unacknowledged at any time.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: Target(None, 1, 2)},
        start=_on_pulsar("append-pulsar-concurrent-256", _CONCURRENT, 1024),
    ),
    Row(
        name="sync-pulsar-1KiB",
        what="time of one append of 1 KiB on Pulsar, one after the other.",
        reference="pulsar-client `send`, batching off.",
        unit="ms",
        higher_is_better=False,
        targets={"p50": Target(1.6, 1.4, 1.15), "p99": Target(None, 1.6, 1.25)},
        start=_on_pulsar("sync-pulsar-1KiB", _SYNC, 1024),
    ),
    Row(
        name="append-embedded-1KiB",
        what="messages of 1 KiB appended durably through the full path on the embedded backend.",
        reference="the same bytes to a file, fdatasync after each write of 1 MiB, same disk.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: Target(0.4, 0.5, 0.8)},
        start=_embedded("append-embedded-1KiB", _FLOOD, "fdatasync", 1024),
    ),
    _sync_embedded(
        "sync-embedded-1KiB",
        "time of one durable append of 1 KiB on the embedded backend, one after the other.",
        _embedded("sync-embedded-1KiB", _SYNC, "rocksdb-put", 1024),
    ),
    _sync_embedded(
        "sync-embedded-in-process-1KiB",
        "the same with `open_embedded`: client, node and log in one process.",
        _in_process(_SYNC, "rocksdb-put", 1024),
    ),
    *reading.ROWS,
    *peers.ROWS,
    *growth.ROWS,
    *recovery.ROWS,
)
"""All rows, in the order of the table."""
