"""The official client against an API server over HTTP: what it answers, and what it does to us."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from walplane.lease import contract
from walplane.lease.authority import LeaseAuthority
from walplane.lease.contract import Body
from walplane.lease.kube import KubeLeases
from walplane.lease.store import ApiError, Event
from walplane.lease.watch import LeaseWatch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.kube_api import KubeApi, write_kubeconfig
from walplane.testkit.waiting import until
from walplane.wal.ports import StaleTerm

SELECTOR = contract.selector("demo")
CALL_S = 0.5


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeApi]:
    async with KubeApi.serving() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield api


@pytest.fixture
async def store(api: KubeApi) -> AsyncIterator[KubeLeases]:
    async with KubeLeases.connect("test", CALL_S) as store:
        yield store


def lease(name: str = "a", holder: str = "me", cluster: str = "demo", **annotations: str) -> Body:
    return {
        "metadata": {
            "name": name,
            "labels": {contract.CLUSTER_LABEL: cluster},
            "annotations": annotations,
        },
        "spec": {"holderIdentity": holder},
    }


def with_holder(body: Body, holder: str) -> Body:
    return {**body, "spec": {**body["spec"], "holderIdentity": holder}}


# --- single calls --------------------------------------------------------------------------------


async def test_a_lease_is_made_read_replaced_and_deleted(api: KubeApi, store: KubeLeases) -> None:
    made = await store.create(lease())
    assert contract.holder_of(await store.get("a")) == "me"
    other = await store.replace(with_holder(made, "other"))
    assert contract.holder_of(api.leases["a"]) == "other"
    with pytest.raises(ApiError) as stale:
        await store.delete(made)
    assert stale.value.conflict
    await store.delete(other)
    assert api.leases == {}


async def test_a_write_of_what_somebody_changed_is_a_conflict(store: KubeLeases) -> None:
    made = await store.create(lease())
    await store.replace(with_holder(made, "other"))
    for write in (store.replace(with_holder(made, "me")), store.create(lease())):
        with pytest.raises(ApiError) as caught:
            await write
        assert caught.value.conflict
    assert contract.holder_of(await store.get("a")) == "other"


async def test_a_deleted_lease_is_not_made_again_by_a_replacement(
    api: KubeApi, store: KubeLeases
) -> None:
    made = await store.create(lease())
    api.remove("a")
    with pytest.raises(ApiError) as caught:
        await store.replace(with_holder(made, "me"))
    assert caught.value.conflict
    assert api.leases == {}
    with pytest.raises(ValueError, match="never read"):
        await store.replace(lease())


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500, 503])
async def test_a_refusal_says_nothing_about_the_lease(
    api: KubeApi, store: KubeLeases, status: int
) -> None:
    made = await store.create(lease())
    api.answer(status, times=3, headers={"Retry-After": "2"})
    for call in (store.get("a"), store.replace(made), store.list(SELECTOR)):
        with pytest.raises(ApiError) as caught:
            await call
        assert (caught.value.status, caught.value.conflict) == (status, False)
        assert (caught.value.code, caught.value.retry_after_ms) == (ErrorCode.INNER, 2000)
    assert "a" in api.leases


async def test_a_server_that_hangs_or_is_gone_is_an_error_in_time(
    api: KubeApi, store: KubeLeases
) -> None:
    api.faults.append(lambda _: 30.0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(ApiError, match="in time") as caught:
        await store.get("a")
    assert caught.value.status == 0
    assert asyncio.get_running_loop().time() - began < 5 * CALL_S
    await api.stop()
    with pytest.raises(ApiError, match="API server"):
        await store.get("a")


async def test_no_configuration_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(WalError, match="no way to a Kubernetes API server"):
        async with KubeLeases.connect("test"):
            pass


# --- watches -------------------------------------------------------------------------------------


async def test_a_watch_shows_what_changes_and_ends_with_a_bookmark(
    api: KubeApi, store: KubeLeases
) -> None:
    api.put(lease("before"))
    listed = await store.list(SELECTOR)
    assert [contract.name_of(body) for body in listed.items] == ["before"]
    seen: list[Event] = []
    async with store.watch(SELECTOR, listed.resource_version, 1.0) as events:
        api.put(lease("foreign", cluster="other"))
        api.put(lease("a"))
        api.remove("a")
        async for event in events:
            seen.append(event)  # noqa: PERF401 - an endless stream
    assert [event.type for event in seen] == ["ADDED", "DELETED", "BOOKMARK"]
    assert "name" not in seen[-1].body["metadata"]


async def test_a_watch_from_the_forgotten_past_is_gone(api: KubeApi, store: KubeLeases) -> None:
    listed = await store.list(SELECTOR)
    api.put(lease())
    api.compact()
    async with store.watch(SELECTOR, listed.resource_version, 1.0) as events:
        with pytest.raises(ApiError) as caught:
            await anext(events)
    assert caught.value.status == 410


async def test_a_watch_that_tells_nothing_ends_by_its_deadline(
    api: KubeApi, store: KubeLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walplane.lease.kube._WATCH_SLACK_S", 0.2)
    api.silent = True
    api.faults.append(lambda request: None)
    async with store.watch(SELECTOR, "100", 0.3) as events:
        monkeypatch.setattr(api, "silent", True)
        with pytest.raises((ApiError, StopAsyncIteration)):
            await anext(events)


async def test_what_is_longer_than_a_network_buffer_comes_whole(
    api: KubeApi, store: KubeLeases
) -> None:
    async with store.watch(SELECTOR, "100", 2.0) as events:
        api.put(lease("big", **{contract.REPORT: "x" * 250_000}))
        event = await anext(events)
    assert len(contract.annotation(event.body, contract.REPORT)) == 250_000


class Seen:
    """What a watch told."""

    def __init__(self, store: KubeLeases, window_s: float = 1.0) -> None:
        self.told: list[tuple[str, str | None]] = []
        self.live: list[bool] = []
        self.watch = LeaseWatch(
            *(store, SELECTOR, Runtime.system(), self.take, self.live.append), window_s
        )

    def take(self, name: str, body: Body | None) -> None:
        self.told.append((name, None if body is None else contract.holder_of(body)))

    def holders(self) -> dict[str, str]:
        return {name: contract.holder_of(body) for name, body in self.watch.leases.items()}


@pytest.fixture
async def seen(store: KubeLeases) -> AsyncIterator[Seen]:
    seen = Seen(store)
    running = asyncio.create_task(seen.watch.run())
    yield seen
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled(), running.exception()


async def test_the_copy_follows_over_the_ends_of_watches(api: KubeApi, seen: Seen) -> None:
    await seen.watch.synced.wait()
    for number in range(15):  # longer than one watch lasts
        api.put(lease("a", str(number)))
        api.put(lease(f"n{number}"))
        await asyncio.sleep(0.1)
    api.remove("a")
    await until(lambda: seen.told[-1] == ("a", None))
    assert [holder for name, holder in seen.told if name == "a"][:-1] == [
        str(number) for number in range(15)
    ]
    assert seen.live == [True], "a watch that ends in good order is no loss"
    assert sum(method == "GET" and not name for method, name in api.requests) >= 3


async def test_what_was_missed_is_found_by_the_next_list(api: KubeApi, seen: Seen) -> None:
    api.put(lease("gone"))
    api.put(lease("kept", "old"))
    await until(lambda: seen.holders() == {"gone": "me", "kept": "old"})
    await api.stop()
    await until(lambda: not seen.watch.live)
    assert seen.holders() == {"gone": "me", "kept": "old"}, "away means unknown, never gone"
    api.remove("gone")
    api.put(lease("kept", "new"))
    api.compact()
    await api.start()
    await until(lambda: seen.watch.live)
    assert seen.holders() == {"kept": "new"}
    assert seen.told[-2:] == [("gone", None), ("kept", "new")]
    assert seen.live == [True, False, True]


async def test_410_leads_to_a_new_list(api: KubeApi, seen: Seen) -> None:
    await seen.watch.synced.wait()
    await until(lambda: api.watches == 1)
    api.silent = True
    api.put(lease("missed"))
    api.compact()
    api.silent = False
    api.put(lease("next"))
    await until(lambda: seen.holders() == {"missed": "me", "next": "me"})


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_refused_lists_and_watches_remove_nothing(
    api: KubeApi, seen: Seen, status: int
) -> None:
    api.put(lease("a"))
    await until(lambda: "a" in seen.watch.leases)
    api.answer(status, times=3, name="")
    await until(lambda: len(seen.live) >= 3, 15)
    assert seen.live[:3] == [True, False, True]
    assert seen.told == [("a", "me")]


async def test_the_server_asks_for_patience(api: KubeApi, store: KubeLeases) -> None:
    seen = Seen(store)
    api.answer(429, times=1, headers={"Retry-After": "1"})
    began = asyncio.get_running_loop().time()
    running = asyncio.create_task(seen.watch.run())
    await seen.watch.synced.wait()
    assert asyncio.get_running_loop().time() - began >= 1
    running.cancel()


async def test_no_watch_is_left_behind(api: KubeApi, seen: Seen) -> None:
    await seen.watch.synced.wait()
    for _ in range(3):
        await until(lambda: api.watches >= 1)
        await api.stop()
        await api.start()
    await until(lambda: seen.watch.live)
    await until(lambda: api.watches == 1)


# --- the quorum read -----------------------------------------------------------------------------


async def test_the_authority_reads_the_lease_itself(api: KubeApi, store: KubeLeases) -> None:
    authority = LeaseAuthority(store, "demo", "me")
    granted = {contract.CHANNEL: "p_3", contract.TERM: "5"}
    api.put(lease("demo-pch-3", **granted))
    assert await authority.current_term("p_3") == 5
    api.put(lease("demo-pch-3", **granted | {contract.TERM: "6"}))
    assert await authority.current_term("p_3") == 6, "never from a cache"
    api.put(lease("demo-pch-3", "other", **granted))
    with pytest.raises(StaleTerm):
        await authority.current_term("p_3")
    api.put(lease("demo-pch-3", **granted | {contract.TERM: "x"}))
    for pchannel in ("p_3", "p_4"):
        with pytest.raises(WalError) as caught:
            await authority.current_term(pchannel)
        assert caught.value.code is ErrorCode.INNER, "malformed or missing: no answer"


async def test_a_connection_that_nobody_takes_is_given_up_before_the_call_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that has just died takes up whole calls, and then a session is late."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        host, port = deaf.getsockname()
        config = write_kubeconfig(tmp_path / "kubeconfig", f"http://{host}:{port}")
        monkeypatch.setenv("KUBECONFIG", str(config))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with _queue_filled(host, port):
            async with KubeLeases.connect("test", 60.0) as store:
                with pytest.raises(ApiError, match="did not answer in time"):
                    async with asyncio.timeout(10):
                        await store.get("a")


@contextmanager
def _queue_filled(host: str, port: int) -> Iterator[None]:
    """Fills a listener's queue: SYNs to it are dropped from then on."""
    with ExitStack() as stack:
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect((host, port))
            except TimeoutError:
                break
        yield
