"""The metrics of one StreamingNode, made when they are asked for. Layer: node.

Contract: nothing here runs unless somebody scrapes; what is shown is read on the event loop. Labels
are PChannels this node was given, error codes and words of this module: no VChannel, no collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from walplane.node.streaming_node import StreamingNode
from walplane.runtime import Runtime
from walplane.ticks import TICKS_PER_S
from walplane.wal.meter import Durations, LogMeter
from walplane.wal.wal import WAL


def _checkpoint_lag(wal: WAL) -> float:
    """Of what was written: idle ticks need no replay."""
    if not wal.unsaved_bytes:
        return 0.0
    return _seconds_since(wal, wal.recovery.checkpoint_tick)


def _segment_lag(wal: WAL) -> float:
    """Of what was written, too; it keeps the log from being cut off, whatever the retention."""
    return _seconds_since(wal, wal.recovery.segments.position.time_tick)


def _seconds_since(wal: WAL, tick: int) -> float:
    """From a tick to what is settled; 0 is none, and counts from where the log begins."""
    return max(wal.settled_tick() - (tick or _begins(wal)), 0) / TICKS_PER_S


def _begins(wal: WAL) -> int:
    """The tick of the first VChannel, or of this open."""
    first = next(iter(wal.recovery.shards.vchannels.values()), None)
    floor = wal.buffer.floor  # that of the open, unless much was written since
    return floor if first is None else min(floor, first.created_tick)


def _takes_appends(wal: WAL) -> bool:
    """A poisoned log refuses them; one whose segments are quarantined takes them."""
    return wal.state == "serving" and wal.recovery.poison is None


_STATES: tuple[tuple[str, str, Callable[[WAL], float]], ...] = (
    ("checkpoint_lag_seconds", "Tick time that a recovery would replay.", _checkpoint_lag),
    ("checkpoint_lag_bytes", "Bodies that it would replay.", lambda wal: wal.unsaved_bytes),
    ("write_ahead_bytes", "Entries kept for tailing readers.", lambda wal: wal.buffer.bytes),
    ("write_ahead_limit_bytes", "At most.", lambda wal: wal.config.write_ahead_bytes),
    ("pending_bytes", "Bodies not acknowledged yet.", lambda wal: wal.appender.bytes_pending),
    ("open_transactions", "That no record ended.", lambda wal: len(wal.recovery.txns.open)),
    ("vchannels", "VChannels of the log.", lambda wal: len(wal.recovery.shards)),
    ("term", "Term under which the log is held.", lambda wal: wal.term),
    ("serving", "Whether the log takes appends.", _takes_appends),
)
_COUNTERS: tuple[tuple[str, str, Callable[[LogMeter], int]], ...] = (
    ("appended_frames", "Frames acknowledged by the backend.", lambda each: each.frames),
    ("appended_entries", "Entries in them.", lambda each: each.entries),
    ("appended_messages", "Messages in them.", lambda each: each.messages),
    ("appended_bytes", "Bytes of their bodies.", lambda each: each.bytes),
    ("self_reopens", "Opens after an unknown outcome.", lambda each: each.reopens),
    ("channels_lost", "Logs that ended unasked.", lambda each: each.lost),
    (
        "reorder_violations",
        "Entries at or below a tick that readers were told is complete.",
        lambda each: each.reorder_violations,
    ),
    ("transactions_expired", "Rolled back for silence.", lambda each: each.expired),
    ("delivered_bytes", "Bodies sent to readers.", lambda each: each.delivered_bytes),
)


class NodeCollector(Collector):
    """What `node` says of itself; `runtime` has the clocks that it lives by."""

    def __init__(self, node: StreamingNode, runtime: Runtime) -> None:
        """Reads nothing yet."""
        self._node = node
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """Every metric of now."""
        yield from self._durations()
        logs = sorted(self._node.meters.logs.items())
        yield from _counters(logs)
        yield from _by_word(logs)
        wals = [wal for _, wal in sorted(self._node.held().items())]
        yield from self._states(wals)
        yield from self._segments(wals)
        yield from self._budgets()

    def _durations(self) -> Iterator[Metric]:
        name, text = "walplane_append_seconds", "From an append to its acknowledgement."
        appends = HistogramMetricFamily(name, text, labels=["type"])
        for kind, durations in self._node.meters.latencies.items():
            _fill(appends, [kind], durations)
        yield appends
        name, text = "walplane_lock_wait_seconds", "Waits of appends for a lock that was taken."
        waits = HistogramMetricFamily(name, text, labels=[])
        _fill(waits, [], self._node.meters.lock_waits)
        yield waits
        opens = HistogramMetricFamily("walplane_open_seconds", "Of opens that serve.", labels=[])
        _fill(opens, [], self._node.meters.opens)
        yield opens

    def _budgets(self) -> Iterator[Metric]:
        node = self._node
        for name, text, value in (
            ("in_flight_bytes", "Entries in flight over all streams.", node.append_budget.used),
            ("in_flight_limit_bytes", "What is in flight at most.", node.config.node_append_bytes),
            ("read_turns", "Readers that are being sent something.", node.read_turns.held),
            ("read_turns_limit", "How many may be at a time.", node.config.read_turns),
            ("growing_bytes", "In segments that take more.", node.growth.bytes),
            ("growing_limit_bytes", "Above it, some are sealed.", node.config.growth.high_bytes),
            ("tick_reserve", "Ticks left of the oracle's latest batch.", node.reserve.left),
        ):
            yield GaugeMetricFamily(f"walplane_{name}", text, value=value)

    def _segments(self, wals: list[WAL]) -> Iterator[Metric]:
        """Nothing where no segments are stored."""
        if self._node.segments is None:
            return
        budget = self._node.segments.budget
        for name, text, value in (
            ("segment_backlog_bytes", "Rows that wait to be stored.", budget.used),
            ("segment_backlog_limit_bytes", "Above it, some are stored.", budget.max_bytes),
        ):
            yield GaugeMetricFamily(f"walplane_{name}", text, value=value)
        yield _gauge("segment_lag_seconds", "Tick time that is not stored.", wals, _segment_lag)

    def _states(self, wals: list[WAL]) -> Iterator[Metric]:
        lag = ("watermark_lag_seconds", "For how long the oldest tick has not been settled.")
        oldest = ("oldest_append_seconds", "Age of the oldest append without an answer.")
        yield _gauge(*lag, wals, self._watermark_lag)
        yield _gauge(*oldest, wals, self._oldest)
        for name, text, value in _STATES:
            yield _gauge(name, text, wals, value)
        yield _held_up(wals)

    def _watermark_lag(self, wal: WAL) -> float:
        """Not by the watermark: the clocks of ticks and node differ, and an idle one stands."""
        oldest = wal.acks.oldest
        return 0.0 if oldest is None else self._runtime.monotonic() - oldest.since

    def _oldest(self, wal: WAL) -> float:
        since = [next(iter(wal.meter.waiting.values()), None), wal.appender.oldest_append]
        now = self._runtime.monotonic()
        return max((now - each for each in since if each is not None), default=0.0)


def _gauge(name: str, text: str, wals: list[WAL], value: Callable[[WAL], float]) -> Metric:
    family = GaugeMetricFamily(f"walplane_{name}", text, labels=["pchannel"])
    for wal in wals:
        family.add_metric([wal.pchannel], float(value(wal)))
    return family


def _held_up(wals: list[WAL]) -> Metric:
    """A log that nothing holds up has no sample, so that no condition is missing here."""
    text = "1: something keeps its checkpoint or its head where it is."
    family = GaugeMetricFamily("walplane_held_up", text, labels=["pchannel", "condition"])
    for wal in wals:
        if condition := wal.status().condition:
            family.add_metric([wal.pchannel, condition], 1)
    return family


def _counters(logs: Sequence[tuple[str, LogMeter]]) -> Iterator[Metric]:
    for name, text, value in _COUNTERS:
        family = CounterMetricFamily(f"walplane_{name}", text, labels=["pchannel"])
        for pchannel, meter in logs:
            family.add_metric([pchannel], value(meter))
        yield family


def _by_word(logs: Sequence[tuple[str, LogMeter]]) -> Iterator[Metric]:
    errors = CounterMetricFamily(
        "walplane_append_errors", "Appends that failed.", labels=["pchannel", "code"]
    )
    opens = CounterMetricFamily("walplane_opens", "Grants taken up.", labels=["pchannel", "result"])
    dropped = CounterMetricFamily(
        "walplane_frames_dropped", "Frames that do not count.", labels=["pchannel", "why"]
    )
    objects = CounterMetricFamily(
        "walplane_segment_objects", "Attempts to store one.", labels=["pchannel", "result"]
    )
    readers = GaugeMetricFamily("walplane_readers", "Open readers.", labels=["pchannel", "mode"])
    writers = GaugeMetricFamily(
        "walplane_held_back_streams", "Of writers, that wait for room.", labels=["pchannel"]
    )
    for pchannel, meter in logs:
        for code, count in sorted(meter.refused.items()):
            errors.add_metric([pchannel, code.name], count)
        for result, count in sorted(meter.opens.items()):
            opens.add_metric([pchannel, result], count)
        for why, count in sorted(meter.dropped.items()):
            dropped.add_metric([pchannel, why], count)
        for result, count in sorted(meter.objects.items()):
            objects.add_metric([pchannel, result], count)
        tailing = sum(reader.tailing for reader in meter.readers)
        readers.add_metric([pchannel, "tailing"], tailing)
        readers.add_metric([pchannel, "catching_up"], len(meter.readers) - tailing)
        writers.add_metric([pchannel], meter.held_back)
    yield from (errors, opens, dropped, objects, readers, writers)


def _fill(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    names = [*(str(bound) for bound in durations.bounds), "+Inf"]
    buckets = list(zip(names, accumulate(durations.counts), strict=True))
    family.add_metric(labels, buckets, durations.total_s)
