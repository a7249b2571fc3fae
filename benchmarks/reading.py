"""The rows about reading: how soon a tailing reader has a message, how fast one catches up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from benchmarks.model import VALUE, Pair, Row, Sample, Setting, Target
from benchmarks.sides import Start, unused
from benchmarks.system import Broker, Node, broker, load, run_program, standalone

_TICK_INTERVAL_MS = 200.0
_TAIL_RATE = 500
_TAIL_BYTES = 1024
_FILL_TIMEOUT_S = 600.0


def _tail_latency(name: str, text: str, on_pulsar: bool) -> Row:
    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with _backend(on_pulsar) as pulsar:
            backend = pulsar.backend if pulsar else None
            versions = {"pulsar broker": pulsar.version()} if pulsar else {}
            with standalone(setting, name, backend) as node:

                def ours(seconds: float) -> Sample:
                    arguments = ["--address", node.address, "--collection", unused("benchmark_")]
                    arguments += ["--size", str(_TAIL_BYTES), "--rate", str(_TAIL_RATE)]
                    return load("walplane_tail", *arguments, seconds=seconds, node=node)

                yield Pair(ours, None, versions)

    return Row(
        name=name,
        what="time from an append's acknowledgement at its client until a tailing reader in "
        f"another process has the message, {text}, {_TAIL_RATE} appends of 1 KiB a second.",
        reference="the tick interval of the reference system, 200 ms.",
        unit="ms",
        higher_is_better=False,
        targets={"p99": Target(None, 20 / _TICK_INTERVAL_MS, 5 / _TICK_INTERVAL_MS)},
        start=start,
        constant=_TICK_INTERVAL_MS,
    )


def _backend(on_pulsar: bool) -> AbstractContextManager[Broker | None]:
    return broker() if on_pulsar else nullcontext()


def _catch_up(name: str, size: int, text: str, messages: int) -> Row:
    return Row(
        name=name,
        what=f"{messages:,} messages of {text} read from earliest to the present end, "
        "`reader.batches()`, every payload as bytes; real Pulsar.",
        reference="pulsar-client's reader, receiver queue 10,000, on as many messages in batches.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: Target(None, 1, 3)},
        start=_catching_up(name, size, messages),
    )


def _catching_up(name: str, size: int, messages: int) -> Start:
    """Both logs are filled once; every round reads all of them."""
    amount = ["--size", str(size), "--messages", str(messages)]

    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with broker() as pulsar, standalone(setting, name, pulsar.backend) as node:
            log = ["--address", node.address, "--collection", unused("benchmark_"), *amount]
            topic = ["--url", pulsar.service, "--topic", pulsar.topic(unused("read-")), *amount]
            run_program("walplane_reader", "fill", *log, timeout_s=_FILL_TIMEOUT_S)
            run_program("pulsar_reader", "fill", *topic, timeout_s=_FILL_TIMEOUT_S)
            yield _readers(node, log, topic, pulsar.version())

    return start


def _readers(node: Node, log: list[str], topic: list[str], version: str) -> Pair:
    def ours(seconds: float) -> Sample:
        return load("walplane_reader", "catch-up", *log, seconds=seconds, node=node)

    def reference(seconds: float) -> Sample:
        return load("pulsar_reader", "catch-up", *topic, seconds=seconds)

    return Pair(ours, reference, {"pulsar broker": version})


ROWS = (
    _tail_latency("tail-latency-embedded", "embedded backend", on_pulsar=False),
    _tail_latency("tail-latency-pulsar", "real Pulsar", on_pulsar=True),
    _catch_up("catch-up-pulsar-128B", 128, "128 B", 1_000_000),
    _catch_up("catch-up-pulsar-1KiB", 1024, "1 KiB", 200_000),
)
"""In the order of the table."""
