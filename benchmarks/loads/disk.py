"""The references on the local disk: fdatasync of large writes, and RocksDB's own synced put."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import Options, Rdict, WriteOptions

from benchmarks.loads.common import WARM_UP_S, latency, payloads, rate, report

_WRITE_BYTES = 1 << 20


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("fdatasync", "rocksdb-put"))
    parser.add_argument("--data", type=Path, required=True, help="directory, not there yet")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    options.data.mkdir(parents=True)
    bodies = payloads(options.size)
    if options.mode == "fdatasync":
        blob = b"".join(bodies * (_WRITE_BYTES // options.size // len(bodies) + 1))[:_WRITE_BYTES]
        fdatasync(options.data / "warm-up", blob, WARM_UP_S)
        written, elapsed = fdatasync(options.data / "file", blob, options.seconds)
        report(rate(written // options.size, elapsed, options.size))
    else:
        with _rocksdb(options.data) as database:
            put(database, bodies, WARM_UP_S)
            report(latency(put(database, bodies, options.seconds)))


def fdatasync(path: Path, blob: bytes, seconds: float) -> tuple[int, float]:
    """Appends `blob` to a new file, synced each time; bytes and seconds."""
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
    written = 0
    start = time.perf_counter()
    end = start + seconds
    try:
        while time.perf_counter() < end:
            written += os.write(file, blob)
            os.fdatasync(file)
        return written, time.perf_counter() - start
    finally:
        os.close(file)


@contextmanager
def _rocksdb(data: Path) -> Iterator[Rdict]:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    database = Rdict(str(data / "rocksdb"), options)
    synced = WriteOptions()
    synced.sync = True
    database.set_write_options(synced)
    try:
        yield database
    finally:
        database.close()


def put(database: Rdict, bodies: list[bytes], seconds: float) -> list[float]:
    """Growing keys, one synced put after the other; the seconds that each took."""
    taken: list[float] = []
    first = time.time_ns()
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        database[(first + len(taken)).to_bytes(8, "big")] = bodies[len(taken) % len(bodies)]
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    main()
