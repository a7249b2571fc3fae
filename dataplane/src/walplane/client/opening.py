"""Opens a named producer at whoever serves its PChannel. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.transport import OpenedProducer, ProducerOpening, Transport
from walplane.rpc.errors import Action, ErrorCode, WalError


async def open_named(
    discovery: Discovery,
    transport: Callable[[Assignment], Transport],
    opener: bytes,
    pchannel: str,
    vchannel: str,
    name: str,
    config: ClientConfig,
) -> OpenedProducer:
    """Opens a name, whoever serves the PChannel; tries for as long as it is worth while.

    The one that opens is asked first who did before: an open that arrives when another came between
    changes nothing.

    Raises:
        WalError: INVALID_ARGUMENT, CHANNEL_NOT_EXIST or PRODUCER_FENCED.
    """
    failed: Assignment | None = None
    delay = config.backoff_min_s
    while True:
        assignment = await discovery.served(pchannel, unlike=failed, patience_s=delay)
        owner = transport(assignment)
        try:
            known = await owner.open_producer(assignment, ProducerOpening(vchannel, name))
            asked = ProducerOpening(vchannel, name, opener, known.epoch)
            return await owner.open_producer(assignment, asked)
        except WalError as error:
            if error.action is Action.GIVE_UP or error.code is ErrorCode.CHANNEL_NOT_EXIST:
                raise
            failed = None
            if error.action is Action.REDISCOVER:
                failed = assignment
                discovery.report(assignment, error)
            else:
                await asyncio.sleep(max(delay, error.retry_after_ms / 1000))
            delay = min(delay * 2, config.backoff_max_s)
