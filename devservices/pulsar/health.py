"""A broker that stands still: found, its threads kept, and a living one put in its place.

It was seen once that a broker took connections and answered none, while its admin service went on.
Contract: `revive` is called by any test process after a failure; what it found stands in a file for
each time.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from pathlib import Path

import pulsar

from devservices.pulsar.locks import locked
from devservices.pulsar.process import PulsarProcess

_PROBES = 8  # each on a connection of its own: the broker deals them out to its threads
_PROBE_S = 5
_DUMP_S = 10.0
_WAITS = re.compile(r"CompletableFuture\.(join|get)\(|BLOCKED|Java-level deadlock")
_FRAMES, _LINES = 16, 100  # shown of a thread, and of all
_DUMP_ENDS = b"JNI global refs"  # the line after a JVM's last thread


def revive(broker: PulsarProcess, life: str, kept: Path) -> bool:
    """Whether the broker's `life` (its handle then) is over; if it is, it lives again by now.

    It is over as well when the broker stands still. Data and ports stay; its log, with a dump of
    its threads, is kept in the folder `kept`.
    """
    with locked(kept.parent / f"{kept.name}.lock"):
        if broker.running and _answers(broker.url):
            return broker.handle != life
        if broker.running:
            _dump_threads(broker)
        kept.mkdir(exist_ok=True)
        numbers = itertools.count(1)
        place = next(path for n in numbers if not (path := kept / f"{n}.log").exists())
        place.write_bytes(broker.log.read_bytes())
        broker.kill()
        broker.start()
        return True


def waiting_threads(log: Path) -> str:
    """The threads in the last dump of a log that wait for others, each with where it stands."""
    _, _, dump = log.read_text(errors="replace").rpartition("Full thread dump")
    threads = [thread for thread in dump.split("\n\n") if _WAITS.search(thread)]
    shown = [line for thread in threads for line in thread.strip().splitlines()[:_FRAMES]]
    return "\n".join(shown[:_LINES]) or "no thread waits for another: see the end of the log"


def _answers(url: str) -> bool:
    service_url = url.partition("?")[0]
    return all(_answers_once(service_url) for _ in range(_PROBES))


def _answers_once(service_url: str) -> bool:
    client = pulsar.Client(
        service_url,
        operation_timeout_seconds=_PROBE_S,
        connection_timeout_ms=_PROBE_S * 1000,
        logger=logging.getLogger(__name__),
    )
    try:
        client.get_topic_partitions("persistent://public/default/probe")
    except pulsar.TopicNotFound:
        return True
    except pulsar.PulsarException:
        return False
    finally:
        client.close()
    return True


def _dump_threads(broker: PulsarProcess) -> None:
    """Has the JVM write what each of its threads does into its log, and waits until it has."""
    before = broker.log.stat().st_size
    broker.dump_threads()
    deadline = time.monotonic() + _DUMP_S
    while time.monotonic() < deadline:
        with broker.log.open("rb") as log:
            log.seek(before)
            if _DUMP_ENDS in log.read():
                return
        time.sleep(0.05)
