"""Whether producers' batches follow each other: none twice, none left out (I13). Layer: wal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from walplane.message.txn import txn_of
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.windows import ProducerKey, number_after, producer_key_of, title

_PRODUCERS = 50_000


class _Numbers(NamedTuple):
    epoch: int  # of a named producer
    due: int | None  # None: the log was cut off, or begins with its open
    fresh: bool  # whether it was just opened: a name that was forgotten begins anew


class ProducerAudit:
    """The producers of one log, in bounded memory; `report` takes an invariant and a sentence."""

    def __init__(self, report: Callable[[str, str], None], name: Callable[[LogEntry], str]) -> None:
        """Nothing seen yet."""
        self._report = report
        self._name = name
        self._numbers: OrderedDict[tuple[ProducerKey, int], _Numbers] = OrderedDict()

    def take(self, item: LogEntry) -> None:
        """The next entry in log order."""
        envelope = item.entry.envelope
        if not envelope.HasField("producer"):
            return
        producer = envelope.producer
        key = (producer_key_of(envelope), txn_of(envelope))
        known = self._numbers.pop(key, None)
        due = known.due if known is not None else None
        if producer.opener:
            self._numbers[key] = _Numbers(item.first_tick, due, fresh=True)
        else:
            wrong = self._wrong(item, known)
            if wrong:
                who = f"batch {producer.number} of {title(key[0])}"
                self._report("I13", f"{self._name(item)} is {who}, {wrong}")
            after = number_after(envelope)
            if wrong and due is not None:
                after = max(due, after)
            self._numbers[key] = _Numbers(producer.epoch, after, fresh=False)
        if len(self._numbers) > _PRODUCERS:
            self._numbers.popitem(last=False)

    def _wrong(self, item: LogEntry, known: _Numbers | None) -> str:
        producer = item.entry.envelope.producer
        if known is None:
            return ""
        if producer.epoch != known.epoch:
            return f"of epoch {producer.epoch} when {known.epoch} was open"
        if known.due is None or (known.fresh and not producer.number):
            return ""
        if producer.number < known.due:
            return "which came before"
        return f"but {known.due} is missing before it" if producer.number > known.due else ""
