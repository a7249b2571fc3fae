"""The reference on Milvus: pymilvus inserting one row a call, several calls in flight.

Runs in the environment that has pymilvus, which has nothing of walplane in it.
"""

from __future__ import annotations

import random
import time
from collections import deque

from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, connections
from pymilvus.orm.future import MutationFuture

from benchmarks.loads.common import WARM_UP_S, appends, peer_options, report

_DIMENSIONS = 16
_TIMEOUT_S = 120.0
_DISTINCT = 1024


def main() -> None:
    """Runs one load; a row is an id and a vector, with its envelope about 128 bytes."""
    options = peer_options()
    connections.connect(host="127.0.0.1", port=str(options.port), timeout=_TIMEOUT_S)
    collection = _collection()
    insert(collection, options.concurrency, WARM_UP_S)
    taken, elapsed = insert(collection, options.concurrency, options.seconds)
    report(appends(taken, elapsed, options.size))
    collection.drop()


def _collection() -> Collection:
    key = FieldSchema("id", DataType.INT64, is_primary=True)
    vector = FieldSchema("vector", DataType.FLOAT_VECTOR, dim=_DIMENSIONS)
    name = f"benchmark_{time.time_ns()}"
    return Collection(name, CollectionSchema([key, vector]), shards_num=1)


def insert(collection: Collection, at_once: int, seconds: float) -> tuple[list[float], float]:
    """Keeps `at_once` inserts in flight; the seconds of each, and of all together."""
    source = random.Random(1)  # noqa: S311 - data, not secrets
    vectors = [[source.random() for _ in range(_DIMENSIONS)] for _ in range(_DISTINCT)]
    flying: deque[tuple[float, MutationFuture]] = deque()
    taken: list[float] = []

    def land() -> None:
        start, future = flying.popleft()
        future.result()
        taken.append(time.perf_counter() - start)

    begun = time.perf_counter()
    end = begun + seconds
    number = time.time_ns()
    while (start := time.perf_counter()) < end:
        number += 1
        row = [[number], [vectors[number % _DISTINCT]]]
        flying.append((start, collection.insert(row, _async=True)))
        if len(flying) == at_once:
            land()
    while flying:
        land()
    return taken, time.perf_counter() - begun


if __name__ == "__main__":
    main()
