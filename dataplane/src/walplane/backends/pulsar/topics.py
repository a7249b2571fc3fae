"""One topic through the admin service: its settings, ledgers, truncation point. Layer: backends.

The durable subscription `walplane` is what keeps a topic's records: its mark-delete position is the
last record that was let go of, so the logical truncation point lies just behind it. Retention 0/0
frees what lies before it, and is therefore set last: by the first truncation, which has seen the
subscription. Until then the namespace keeps everything, even if the subscription is lost.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from walplane.backends.pulsar.admin import Admin
from walplane.backends.pulsar.config import PulsarConfig
from walplane.rpc.errors import ErrorCode, WalError

SUBSCRIPTION = "walplane"
_DEDUP_CURSOR = "pulsar.dedup"
_EARLIEST = {"ledgerId": -1, "entryId": -1, "partitionIndex": -1}
_FREE_AT_ONCE = {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0}
_SETTINGS = ("backlogQuotaMap", "messageTTL", "inactiveTopicPolicies")

Position = tuple[int, int]
"""(ledger, entry); an entry of -1 is the place before a ledger's first."""


@dataclass(frozen=True)
class TopicState:
    """What the broker knows about one topic.

    Attributes:
        ledgers: (id, number of entries) in log order; the last one takes appends.
        cursors: mark-delete position by name of the durable subscription.
    """

    ledgers: tuple[tuple[int, int], ...]
    cursors: dict[str, Position]

    @classmethod
    def from_stats(cls, stats: dict[str, Any]) -> TopicState:
        """The state that `internalStats` tells."""
        ledgers = [(one["ledgerId"], one["entries"]) for one in stats["ledgers"]]
        if ledgers:
            last, entries = ledgers[-1]  # told to be empty while it is open; the closed one
            # before it is the last here until the broker has made the next
            ledgers[-1] = (last, max(entries, stats["currentLedgerEntries"]))
        cursors = {
            name: _position(cursor["markDeletePosition"])
            for name, cursor in stats["cursors"].items()
        }
        return cls(tuple(ledgers), cursors)

    @property
    def floor(self) -> Position | None:
        """The last record that was let go of; None without the subscription."""
        return self.cursors.get(SUBSCRIPTION)

    @property
    def last(self) -> Position | None:
        """The newest record; None when there is none."""
        for ledger, entries in reversed(self.ledgers):
            if entries > 0:
                return ledger, entries - 1
        return None

    def holds(self, position: Position) -> bool:
        """Whether there is a record at `position`, which is above the floor."""
        ledger, entry = position
        return entry < dict(self.ledgers).get(ledger, 0)

    def follows(self, last: Position, first: Position) -> bool:
        """Whether no record lies between the two, as far as the ledgers are still known."""
        if first[0] == last[0]:
            return first[1] == last[1] + 1
        known = dict(self.ledgers)
        between = [n for ledger, n in self.ledgers if last[0] < ledger < first[0]]
        return first[1] == 0 and known.get(last[0]) == last[1] + 1 and not any(between)

    def begins(self, floor: Position, first: Position) -> bool:
        """Whether `first` is the oldest record there is, and the ledger of `floor` was freed.

        Only then can nobody tell what `floor` was followed by.
        """
        freed = floor[0] not in dict(self.ledgers)
        older = any(entries for ledger, entries in self.ledgers if ledger < first[0])
        return freed and first[1] == 0 and not older


class Topics:
    """The topics of one namespace."""

    def __init__(self, admin: Admin, config: PulsarConfig) -> None:
        """Names the namespace; nothing is called."""
        self._admin = admin
        self._namespace = config.namespace
        self._freeing: set[str] = set()  # topics whose retention was seen to be 0/0

    async def state(self, topic: str) -> TopicState:
        """What the broker knows about `topic`.

        Raises:
            WalError: CHANNEL_NOT_EXIST when it is not there.
        """
        state = await self._find(topic)
        if state is None:
            raise WalError(
                ErrorCode.CHANNEL_NOT_EXIST,
                f"topic {topic} is not in Pulsar's namespace {self._namespace}",
            )
        return state

    async def floor(self, topic: str) -> tuple[TopicState, Position]:
        """The topic's state and the last record that was let go of.

        Raises:
            WalError: CHANNEL_NOT_EXIST, or UNRECOVERABLE when the subscription is gone.
        """
        state = await self.state(topic)
        if state.floor is None:
            raise self._unprotected(topic)
        return state, state.floor

    async def ensure(self, topic: str) -> None:
        """Makes `topic` if need be, and makes sure that it keeps its records.

        Raises:
            WalError: UNRECOVERABLE when its subscription is gone or a setting would lose data.
        """
        path = self._path(topic)
        state = await self._find(topic)
        if state is None:
            await self._admin.put(path)
        protected, *settings = await asyncio.gather(
            self._protect(topic, state),
            *(self._admin.get(f"{path}/{one}?applied=true") for one in _SETTINGS),
        )
        self._judge(topic, protected, dict(zip(_SETTINGS, settings, strict=True)))

    async def _protect(self, topic: str, state: TopicState | None) -> TopicState:
        """The state of a topic that has its subscription; an empty topic is given one."""
        if state is not None and state.floor is not None:
            return state
        path = self._path(topic)
        if state is not None:
            was_truncated = await self._admin.get(f"{path}/retention") is not None
            if was_truncated or state.last is not None:
                raise self._unprotected(topic)
        await self._admin.put(f"{path}/subscription/{SUBSCRIPTION}", _EARLIEST)
        return (await self.floor(topic))[0]

    async def truncate(self, topic: str, keep: Position) -> None:
        """Lets go of every record below `keep`; never moves the point back.

        Whole closed ledgers are freed, at once or at the broker's next round: deduplication holds
        them until it has taken its snapshot.

        Raises:
            WalError: CHANNEL_NOT_EXIST, or UNRECOVERABLE when the subscription is gone.
        """
        _, floor = await self.floor(topic)
        if keep > floor:
            cursor = f"{self._path(topic)}/subscription/{SUBSCRIPTION}/resetcursor"
            position = {"ledgerId": keep[0], "entryId": keep[1], "partitionIndex": -1}
            await self._admin.post(cursor, {**position, "isExcluded": False, "batchIndex": -1})
        if topic not in self._freeing:
            await self._admin.post(f"{self._path(topic)}/retention", _FREE_AT_ONCE)
            self._freeing.add(topic)
        await self._admin.post(f"{self._path(topic)}/trim")

    async def _find(self, topic: str) -> TopicState | None:
        stats = await self._admin.get(f"{self._path(topic)}/internalStats")
        return None if stats is None else TopicState.from_stats(stats)

    def _path(self, topic: str) -> str:
        return f"/persistent/{self._namespace}/{quote(topic, safe='')}"

    def _unprotected(self, topic: str) -> WalError:
        return WalError(
            ErrorCode.UNRECOVERABLE,
            f"data loss: the subscription {SUBSCRIPTION!r} of topic {topic} in Pulsar's namespace "
            f"{self._namespace} is gone, and with it what kept its records; restore the topic, or "
            "delete it if it holds nothing of value",
        )

    def _judge(self, topic: str, state: TopicState, settings: dict[str, Any]) -> None:
        """Refuses settings under which records are doubled, blocked or lost."""
        quotas = (settings["backlogQuotaMap"] or {}).values()
        inactive = settings["inactiveTopicPolicies"] or {}
        wrong = [
            (_DEDUP_CURSOR not in state.cursors, "deduplication is off", "deduplication"),
            (
                any(_positive(q.get("limitSize")) or _positive(q.get("limitTime")) for q in quotas),
                "a backlog quota blocks producers or evicts records",
                "backlog-quota",
            ),
            (_positive(settings["messageTTL"]), "a message TTL removes records", "message-ttl"),
            (
                bool(inactive.get("deleteWhileInactive")),
                "the broker deletes it while it is inactive",
                "inactive-topic-policies",
            ),
        ]
        for is_wrong, complaint, setting in wrong:
            if is_wrong:
                raise WalError(
                    ErrorCode.UNRECOVERABLE,
                    f"topic {topic} would lose data: {complaint}; change {setting} of Pulsar's "
                    f"namespace {self._namespace} (pulsar-admin namespaces), or name a namespace "
                    "that does not exist: walplane makes it with the right settings",
                )


def _positive(limit: int | None) -> bool:
    return limit is not None and limit > 0


def _position(text: str) -> Position:
    ledger, _, entry = text.partition(":")
    return int(ledger), int(entry)
