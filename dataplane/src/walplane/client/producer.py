"""The appends of one client to one PChannel: keeps a stream to whoever owns it, and feeds it.

Contract: one stream per owner and PChannel, opened when there is something to send, and replaced
when it breaks or the PChannel moves; what is unanswered then goes again, in order, under the same
numbers. Nothing is given up here: callers have deadlines, and read `trouble` to say why. Layer:
client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from walplane.client.batcher import Parcel, SendBatch
from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.pipeline import Next, Pipeline
from walplane.client.results import Written
from walplane.client.transport import ProduceStream, Transport
from walplane.prompt import PromptFuture, PromptTask
from walplane.rpc.errors import Action, ErrorCode, WalError

_log = structlog.get_logger(__name__)

_ROUNDED_S = 0.01
"""A wait at the node may end so much early: its time travels in whole milliseconds."""


class ChannelProducer:
    """All pipelines of one PChannel.

    Args:
        pchannel: its name.
        discovery: says who owns it.
        transport: the way to an owner.
        new_id: gives producer ids.
        config: limits.
    """

    def __init__(
        self,
        pchannel: str,
        discovery: Discovery,
        transport: Callable[[Assignment], Transport],
        new_id: Callable[[], bytes],
        config: ClientConfig,
    ) -> None:
        """Sends nothing until the first `offer`."""
        self._pchannel = pchannel
        self._discovery = discovery
        self._transport = transport
        self._new_id = new_id
        self._config = config
        self._pipelines: dict[str, Pipeline] = {}
        self._may_send: deque[Pipeline] = deque()
        self._queued: set[str] = set()
        self._leaving: set[str] = set()
        self._delays: dict[str, float] = {}
        self._work = asyncio.Event()
        self._rest: PromptFuture[None] | None = None  # of `_send`, while it has nothing to do
        self._due: PromptFuture[None] | None = None  # the rest that ends with this turn
        self._awaited: dict[int, tuple[Pipeline, SendBatch]] = {}
        self._request_id = 0
        self._settled = 0
        self._limit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """What keeps appends from being answered, as far as known; empty when nothing does."""
        if self._trouble:
            return self._trouble
        assignment = self._discovery.topology.assignments.get(self._pchannel)
        if assignment is not None and not assignment.served:
            return self._discovery.why_unserved(self._pchannel)
        return ""

    @property
    def entry_limit(self) -> int | None:
        """Bytes an entry of several messages may have here; None until an owner has said so."""
        return self._limit.result() if self._limit.done() else None

    async def first_entry_limit(self) -> int:
        """As `entry_limit`; waits for an owner to say so.

        Raises:
            WalError: the client was closed, or the PChannel is gone.
        """
        if not self._limit.done():
            self._start()
            self._work.set()
        return await asyncio.shield(self._limit)

    def offer(self, lane: str, parcel: Parcel) -> None:
        """Appends `parcel` behind all that `lane` has; returns at once.

        A lane is a VChannel, or what has an order and numbers of its own within one.
        """
        pipeline = self._pipelines.get(lane)
        if pipeline is None:
            pipeline = Pipeline(lane, self._new_id, self._config)
        self.offer_to(pipeline, parcel)

    def offer_to(self, pipeline: Pipeline, parcel: Parcel) -> None:
        """Appends `parcel` behind all that `pipeline` has, which is one of these from now on."""
        self._pipelines[pipeline.vchannel] = pipeline
        enough = pipeline.offer(parcel)
        self._enqueue(pipeline, at_once=pipeline.lone)
        if enough and self._due is not None:
            _end(self._due)
        self._start()

    def forget(self, lane: str) -> None:
        """Nothing more is offered to `lane`: it is dropped once all of it is settled."""
        pipeline = self._pipelines.get(lane)
        if pipeline is not None and pipeline.idle:
            del self._pipelines[lane]
        elif pipeline is not None:
            self._leaving.add(lane)

    async def close(self, error: WalError) -> None:
        """Fails what is unanswered with `error` and lets go of the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail_limit(error)
        for pipeline in self._pipelines.values():
            pipeline.fail(error)

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"produce-{self._pchannel}")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nothing is left hanging when the task fails; the next append starts another."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._task = None
        if not isinstance(error, WalError):
            _log.error("producer failed", pchannel=self._pchannel, exc_info=error)
            error = WalError(ErrorCode.OUTCOME_UNKNOWN, f"{self._pchannel}: {error!r}")
        self._fail_limit(error)
        for pipeline in self._pipelines.values():
            pipeline.fail(error)
        self._pipelines.clear()
        self._may_send.clear()
        self._queued.clear()
        self._leaving.clear()

    def _fail_limit(self, error: WalError) -> None:
        """Tells those who wait for an owner that none will come."""
        if self._limit.done():
            return
        limit, self._limit = self._limit, asyncio.get_running_loop().create_future()
        limit.set_exception(error)
        limit.exception()  # perhaps nobody waits

    async def _run(self) -> None:
        failed: Assignment | None = None
        delay = 0.0
        while True:
            await self._work.wait()
            assignment = await self._discovery.served(
                self._pchannel, unlike=failed, patience_s=delay
            )
            before = self._settled
            try:
                await self._serve(assignment)
            except WalError as error:
                self._note(assignment, error)
                if self._settled != before:
                    delay = 0.0
                failed = assignment
                delay = min(max(delay * 2, self._config.backoff_min_s), self._config.backoff_max_s)
            else:
                failed, delay = None, 0.0

    def _note(self, assignment: Assignment, error: WalError) -> None:
        self._trouble = error.message
        _log.debug("produce stream ended", pchannel=self._pchannel, error=str(error))
        if error.action is Action.REDISCOVER:
            self._discovery.report(assignment, error)

    async def _serve(self, assignment: Assignment) -> None:
        """Sends over one stream until it ends, or the PChannel has moved."""
        stream = await self._transport(assignment).open_produce(assignment)
        self._heed(stream.packed_bytes)
        tasks: set[asyncio.Future[None]] = {
            PromptTask(self._send(stream)),
            PromptTask(self._receive(stream)),
            asyncio.create_task(self._discovery.moved(assignment)),
        }
        try:
            self._trouble = ""
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:  # one has said what happened to all of them
                task.cancelled() or task.exception()
            await stream.close()
            self._disconnected()

    def _disconnected(self) -> None:
        self._awaited.clear()
        self._delays.clear()
        for pipeline in self._pipelines.values():
            pipeline.disconnected()
            if not pipeline.idle:
                self._enqueue(pipeline)

    async def _send(self, stream: ProduceStream) -> None:
        while True:
            if not self._may_send:
                self._work.clear()
                self._rest = PromptFuture()
                await self._rest
                continue
            pipeline = self._may_send.popleft()
            self._queued.discard(pipeline.vchannel)
            limits = (stream.max_entry_bytes, stream.settled_tick, stream.packed_bytes)
            batch = pipeline.next_batch(*limits)
            if batch is None:
                if self._leaving:
                    self._leave(pipeline)
                continue
            self._request_id += 1
            self._awaited[self._request_id] = (pipeline, batch)
            await stream.send(self._request_id, batch)
            if pipeline.unsent:
                self._enqueue(pipeline)

    async def _receive(self, stream: ProduceStream) -> None:
        while True:
            answers = await stream.receive()
            self._heed(stream.packed_bytes)
            for request_id, outcome in answers:
                awaited = self._awaited.pop(request_id, None)
                if awaited is None:
                    raise WalError(
                        ErrorCode.INNER, f"{self._pchannel}: an answer to nothing that was asked"
                    )
                self._settle(*awaited, outcome, stream.packed_bytes)
            if not self._awaited:
                await asyncio.sleep(0)  # whoever was answered goes on first, and may send the next

    def _heed(self, packed_bytes: int) -> None:
        """Entries are made for no more than that from now on."""
        if self._limit.done() and self._limit.result() != packed_bytes:
            self._limit = asyncio.get_running_loop().create_future()
        if not self._limit.done():
            self._limit.set_result(packed_bytes)

    def _settle(
        self, pipeline: Pipeline, batch: SendBatch, outcome: Written | WalError, packed_bytes: int
    ) -> None:
        if isinstance(outcome, WalError) and outcome.code is ErrorCode.RESOURCE_ACQUIRED:
            now = asyncio.get_running_loop().time()
            batch.waited_out = batch.until is not None and batch.until <= now + _ROUNDED_S
        verdict = pipeline.settle(batch, outcome, packed_bytes)
        if isinstance(outcome, Written):
            self._delays.pop(pipeline.vchannel, None)
            self._trouble = ""
            self._settled += 1
        if verdict.error is not None:
            self._trouble = verdict.error.message
            if verdict.next is Next.RECONNECT:
                raise verdict.error
            self._back_off(pipeline, verdict.error.retry_after_ms / 1000)
        elif not pipeline.idle:
            self._enqueue(pipeline)
        elif self._leaving:
            self._leave(pipeline)

    def _leave(self, pipeline: Pipeline) -> None:
        """Drops a lane that was forgotten, once all of it is settled or was given up unsent."""
        if pipeline.vchannel in self._leaving and pipeline.idle:
            self._leaving.discard(pipeline.vchannel)
            self._pipelines.pop(pipeline.vchannel, None)

    def _back_off(self, pipeline: Pipeline, hint_s: float) -> None:
        most = self._config.backoff_max_s
        delay = min(self._delays.get(pipeline.vchannel, 0) * 2, most)
        delay = max(delay, self._config.backoff_min_s, hint_s)
        self._delays[pipeline.vchannel] = delay
        asyncio.get_running_loop().call_later(delay, self._resume, pipeline)

    def _resume(self, pipeline: Pipeline) -> None:
        if self._pipelines.get(pipeline.vchannel) is not pipeline:
            return  # all of it has failed meanwhile: it must not stand in another's place
        pipeline.resume()
        self._enqueue(pipeline)

    def _enqueue(self, pipeline: Pipeline, *, at_once: bool = False) -> None:
        """Has `_send` look at it; at once for callers alone: answers come amid other things."""
        if pipeline.vchannel not in self._queued:
            self._queued.add(pipeline.vchannel)
            self._may_send.append(pipeline)
            self._work.set()
            self._wake(at_once=at_once)

    def _wake(self, *, at_once: bool) -> None:
        """Ends the rest of `_send`, or lets more messages of this turn share an entry."""
        rest, self._rest = self._rest, None
        if rest is not None and not rest.done():
            if at_once:
                rest.set_result(None)
            else:
                self._due = rest
                asyncio.get_running_loop().call_soon(_end, rest)


def _end(rest: asyncio.Future[None]) -> None:
    if not rest.done():
        rest.set_result(None)
