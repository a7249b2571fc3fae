"""The walplane command against a standalone cluster: what it prints, and how it fails."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shlex
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from walplane.channel import shard_of
from walplane.testkit.command import Ran, start, walplane
from walplane.testkit.standalone import StandaloneProcess, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")
_names = (f"collection_{number}" for number in itertools.count())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StandaloneProcess]:
    server = StandaloneProcess(tmp_path_factory.mktemp("cluster") / "data", pchannels=4)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def collection(cluster: StandaloneProcess) -> dict[str, Any]:
    """A new collection of two shards."""
    ran = await at(cluster, "collection", "create", next(_names), "--shards", "2", "-o", "json")
    assert ran.code == 0, ran.err
    created: dict[str, Any] = ran.value
    return created


async def at(cluster: StandaloneProcess, *arguments: str, stdin: bytes = b"") -> Ran:
    return await walplane("--address", cluster.address, *arguments, stdin=stdin)


async def rows_of(cluster: StandaloneProcess, target: str, *options: str) -> list[dict[str, Any]]:
    """What `tail` prints of the inserted messages."""
    ran = await at(cluster, "tail", target, "-o", "json", *options)
    assert ran.code == 0, ran.err
    return [each for each in ran.objects if each["type"] == "INSERT"]


def one_line(ran: Ran) -> str:
    """The one line on standard error of a command that failed."""
    assert ran.code != 0
    assert ran.err.count("\n") == 1, ran.err
    return ran.err.strip()


# --- collections and the cluster ---------------------------------------------------------------


async def test_a_collection_from_create_to_drop(cluster: StandaloneProcess) -> None:
    name = next(_names)
    created = await at(cluster, "collection", "create", name, "--shards", "3", "-o", "json")
    assert created.value["name"] == name
    assert len(created.value["vchannels"]) == created.value["shards"] == 3
    again = await at(cluster, "collection", "create", name)
    assert "already exists" in one_line(again)
    assert again.code == 1
    described = await at(cluster, "collection", "describe", name, "-o", "yaml")
    assert yaml.safe_load(described.out) == created.value
    listed = await at(cluster, "collection", "list", "-o", "json")
    assert created.value in listed.value
    table = await at(cluster, "collection", "list")
    assert table.out.startswith("NAME")
    assert any(line.split()[:1] == [name] for line in table.out.splitlines())
    assert (await at(cluster, "collection", "drop", name)).code == 0
    for command in (["describe", name], ["drop", name]):
        assert f"no collection '{name}'" in one_line(await at(cluster, "collection", *command))


async def test_topology_and_status(cluster: StandaloneProcess) -> None:
    topology = (await at(cluster, "topology", "-o", "json")).value
    assert [each["state"] for each in topology["pchannels"]] == ["ASSIGNED"] * 4
    assert {each["address"] for each in topology["pchannels"]} == {cluster.address}
    status = (await at(cluster, "status", "-o", "json")).value
    assert [each["pchannel"] for each in status] == [f"wal_{number}" for number in range(4)]
    assert {each["state"] for each in status} == {"serving"}
    assert (await at(cluster, "status")).out.count("\n") == 5


async def test_the_address_comes_from_option_or_environment(cluster: StandaloneProcess) -> None:
    after = await walplane("topology", "--address", cluster.address)
    from_environment = await walplane("topology", environment={"WALPLANE_ADDRESS": cluster.address})
    assert (after.code, from_environment.code) == (0, 0)
    nobody = f"127.0.0.1:{free_port()}"
    ran = await walplane("--address", nobody, "topology")
    assert ran.code == 1
    assert f"no walplane at {nobody}" in one_line(ran)


async def test_version_needs_no_cluster() -> None:
    ran = await walplane("version", "-o", "json")
    assert ran.value["walplane"]


# --- append and tail ---------------------------------------------------------------------------


async def test_appended_lines_are_read_back(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    lines = [f"line {number} ü".encode() for number in range(500)]
    lines[7], lines[9] = b"", b"\xff\x00"
    name = collection["name"]
    ran = await at(cluster, "append", "--collection", name, "-o", "json", stdin=b"\n".join(lines))
    assert (ran.code, ran.told) == (0, [])
    assert sorted(each["line"] for each in ran.objects) == list(range(1, 501))
    by_id = {(each["vchannel"], each["message_id"]): each for each in ran.objects}
    rows = await rows_of(cluster, name)
    assert len(rows) == len(by_id) == 500
    for row in rows:
        told = by_id[row["vchannel"], row["message_id"]]
        assert told["time_tick"] == row["time_tick"]
        assert row["rows"] == 1
        payload = row["payload"].encode()
        if row["payload_encoding"] == "base64":
            payload = base64.b64decode(payload)
        assert payload == lines[told["line"] - 1]
    for vchannel in collection["vchannels"]:
        ticks = [row["time_tick"] for row in rows if row["vchannel"] == vchannel]
        assert len(ticks) == 250, "without a key, lines go to the shards in turn"
        assert ticks == sorted(set(ticks))


async def test_acknowledgements_are_printed_as_they_come(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    name = collection["name"]
    process = await start("-a", cluster.address, "append", "--collection", name, "-o", "json")
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(1, 4):
        process.stdin.write(b"typed\n")
        async with asyncio.timeout(10):
            told = json.loads(await process.stdout.readline())
        assert told["line"] == number
    process.stdin.close()
    assert await process.wait() == 0


async def test_equal_keys_go_to_one_shard(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    values = ["a", "b", 17, 2.5, True, None, "ü", "17"]
    lines = [json.dumps({"key": values[n % 8], "n": n}) for n in range(80)]
    text = "\n".join(lines).encode()
    name = collection["name"]
    ran = await at(cluster, "append", "--collection", name, "--key", "key", stdin=text)
    assert ran.code == 0, ran.err
    keys = [b"a", b"b", b"17", b"2.5", b"true", b"", "ü".encode(), b"17"]
    for row in await rows_of(cluster, name):
        number = json.loads(row["payload"])["n"]
        assert row["vchannel"] == collection["vchannels"][shard_of(keys[number % 8], 2)]


async def test_a_line_under_a_key_is_appended_once_whatever_run_appends_it(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    name = collection["name"]
    lines = [json.dumps({"id": n, "text": f"line {n}"}).encode() for n in range(50)]
    once = ("append", "--collection", name, "--idempotency-key", "id", "-o", "json")
    first = await at(cluster, *once, stdin=b"\n".join(lines[:30]))
    assert first.code == 0, first.err
    again = await at(cluster, *once, stdin=b"\n".join([*lines[10:], b'{"id": 3}', b'{"id": ""}']))
    assert again.code == 1
    assert "line 41: INVALID_ARGUMENT: another message was appended" in again.err
    assert "line 42: no key 'id': 0 characters" in again.err
    assert len(again.objects) == 40
    assert sorted(row["payload"] for row in await rows_of(cluster, name)) == sorted(
        line.decode() for line in lines
    )


async def test_a_run_under_a_producers_name_goes_on_behind_the_one_before(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    name = collection["name"]
    lines = [b"line %d" % number for number in range(300)]
    named = ("append", "--collection", name, "--producer", "file")
    killed = await start("--address", cluster.address, *named, "-o", "json")
    assert killed.stdin is not None
    assert killed.stdout is not None
    killed.stdin.write(b"\n".join(lines[:201]))  # and never ends
    await killed.stdin.drain()
    await killed.stdout.readline()
    killed.kill()
    await killed.wait()
    again = await at(cluster, *named, stdin=b"\n".join(lines))
    assert again.code == 0, again.err
    [told] = again.told
    skipped = int(told.split()[1])
    assert told == f"walplane: {skipped} lines were appended by an earlier run"
    assert 0 < skipped <= 200
    for shard, vchannel in enumerate(collection["vchannels"]):
        rows = await rows_of(cluster, vchannel)
        assert [row["payload"].encode() for row in rows] == lines[shard::2]
    both = await at(cluster, *named, "--idempotency-key", "id")
    assert both.code == 2
    assert "use one of them" in both.err


async def test_lines_that_fail_are_named_and_the_others_are_appended(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    lines = [b'{"k": "%d"}' % number for number in range(10)]
    lines[3] = b"no json"
    lines[5] = b'{"other": 1}'
    lines[7] = b'{"k": "' + b"x" * ((16 << 20) - 50) + b'"}'
    lines[8] = b'{"k": "' + b"x" * (16 << 20) + b'"}'
    name = collection["name"]
    ran = await at(
        cluster,
        *("append", "--collection", name, "--key", "k", "-o", "json"),
        stdin=b"\n".join(lines),
    )
    assert ran.code == 1
    told = ran.told
    assert [line.split(":")[0] for line in sorted(told[:-1])] == [
        "line 4",
        "line 6",
        "line 8",
        "line 9",
    ]
    oversized = next(line for line in told if line.startswith("line 8"))
    assert "is larger than" in oversized
    assert told[-1] == "walplane: 4 of 10 lines were not acknowledged"
    assert {each["line"] for each in ran.objects} == {1, 2, 3, 5, 7, 10}
    assert len(await rows_of(cluster, name)) == 6


async def test_append_to_an_unknown_collection(cluster: StandaloneProcess) -> None:
    ran = await at(cluster, "append", "--collection", "nowhere", stdin=b"x\n")
    assert "no collection 'nowhere'" in one_line(ran)


async def test_tail_begins_where_it_is_told(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    name, vchannel = collection["name"], collection["vchannels"][0]
    text = b"".join(b"%d\n" % number for number in range(40))
    assert (await at(cluster, "append", "--collection", name, stdin=text)).code == 0
    rows = await rows_of(cluster, vchannel)
    assert [row["payload"] for row in rows] == [str(number) for number in range(0, 40, 2)]
    for number in (0, 7, 19):
        behind = await rows_of(cluster, vchannel, "--from", rows[number]["resume_token"])
        assert behind == rows[number + 1 :]
        at_id = await rows_of(cluster, vchannel, "--from", rows[number]["message_id"])
        assert at_id == rows[number:]
        confirmed = rows[number]["last_confirmed_message_id"]
        since = await rows_of(cluster, vchannel, "--from", confirmed)
        assert [row for row in since if row["time_tick"] > rows[number]["time_tick"]] == rows[
            number + 1 :
        ]
    assert await rows_of(cluster, vchannel, "--from", "latest") == []
    pchannel = vchannel.rpartition("_")[0]
    assert [row for row in await rows_of(cluster, pchannel) if row["vchannel"] == vchannel] == rows
    for start_at in (rows[0]["resume_token"], rows[0]["message_id"]):
        ran = await at(cluster, "tail", name, "--from", start_at)
        assert ran.code == 2
        assert "tail one of " + ", ".join(collection["vchannels"]) in one_line(ran)
    for nowhere in ("somewhere", f"earliest@{'9' * 30}.1.1", f"rocksdb:{'9' * 30}:0:0"):
        ran = await at(cluster, "tail", vchannel, "--from", nowhere)
        assert f"'{nowhere}' is no start" in one_line(ran)


async def test_tail_prints_the_types_that_were_asked_for(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    name = collection["name"]
    assert (await at(cluster, "append", "--collection", name, stdin=b"one")).code == 0
    created = ["CREATE_COLLECTION"] * len(collection["vchannels"])
    insert, create = ("--type", "INSERT"), ("--type", "create-collection")
    for options, types in (
        (insert, ["INSERT"]),
        (create, created),
        ((*insert, *create), [*created, "INSERT"]),
        (("--type", "delete"), []),
    ):
        ran = await at(cluster, "tail", name, *options, "-o", "json")
        assert (ran.code, sorted(row["type"] for row in ran.objects)) == (0, types)
    ran = await at(cluster, "tail", name, "--type", "news")
    assert ran.code == 2
    assert "there is no message type 'news'" in one_line(ran)


async def test_tail_follows(cluster: StandaloneProcess, collection: dict[str, Any]) -> None:
    name = collection["name"]
    options = ("--from", "earliest", "--follow", "-o", "json")
    process = await start("-a", cluster.address, "tail", name, *options)
    try:
        assert process.stdout is not None
        for _ in collection["vchannels"]:
            async with asyncio.timeout(10):
                created = json.loads(await process.stdout.readline())
            assert created["type"] == "CREATE_COLLECTION"
        for number in range(3):
            ran = await at(cluster, "append", "--collection", name, stdin=b"%d" % number)
            assert ran.code == 0
            async with asyncio.timeout(10):
                assert json.loads(await process.stdout.readline())["payload"] == str(number)
        process.send_signal(2)
        async with asyncio.timeout(10):
            _, complaints = await process.communicate()
        assert (process.returncode, complaints) == (130, b"")
    finally:
        if process.returncode is None:
            process.kill()


async def test_tail_into_a_pipe_that_is_closed(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    name = collection["name"]
    text = b"".join(b"%d\n" % number for number in range(20_000))
    assert (await at(cluster, "append", "--collection", name, stdin=text)).code == 0
    process = await asyncio.create_subprocess_shell(
        f"{_shell('tail', name, '-o', 'json', '-a', cluster.address)} | head -n 1; "
        'exit "${PIPESTATUS[0]}"',
        executable="/bin/bash",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out.count(b"\n") == 1
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("target", ["nowhere", "wal_0_999v0", "wal_99", "other_1"])
async def test_tail_of_what_is_not_there(cluster: StandaloneProcess, target: str) -> None:
    ran = await at(cluster, "tail", target)
    assert ran.code == 1
    assert target in one_line(ran)


async def test_the_shell_completes_commands_and_collections(
    cluster: StandaloneProcess, collection: dict[str, Any]
) -> None:
    nobody = f"127.0.0.1:{free_port()}"

    async def completed(words: str, address: str) -> list[str]:
        environment = {
            "_WALPLANE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "WALPLANE_ADDRESS": address,
        }
        ran = await walplane(environment=environment)
        assert ran.err == ""
        return ran.out.split()

    assert "describe" in await completed("walplane collection ", cluster.address)
    for words in ("walplane tail coll", "walplane append --collection coll"):
        assert collection["name"] in await completed(words, cluster.address)
    pchannels = [f"wal_{number}" for number in range(4)]
    verify = "walplane verify --pchannel wal_"
    assert sorted(await completed(verify, cluster.address)) == pchannels
    assert await completed("walplane tail coll", nobody) == []
    for words in (
        f"walplane -a {cluster.address} verify --collection coll",
        f"walplane tail --address {cluster.address} coll",
    ):
        assert collection["name"] in await completed(words, nobody), "what is typed counts"
    for typed, found in (("CREATE_C", "CREATE_COLLECTION"), ("create_c", "create_collection")):
        assert await completed(f"walplane tail c --type {typed}", nobody) == [found]


async def test_a_stack_trace_only_with_debug(cluster: StandaloneProcess) -> None:
    quiet = await at(cluster, "collection", "describe", "nowhere")
    assert "Traceback" not in quiet.err
    loud = await at(cluster, "collection", "describe", "nowhere", "--debug")
    assert "Traceback" in loud.err
    assert loud.err.splitlines()[-1] == one_line(quiet)


def _shell(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "walplane", *arguments])
