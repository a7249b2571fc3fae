"""`walplane ingest`: every row once, in its shard; what is malformed ends it with nothing lost."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
import pytest_asyncio

from walplane.channel import shard_of
from walplane.testkit.command import Ran, walplane
from walplane.testkit.standalone import StandaloneProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")
_names = (f"collection_{number}" for number in itertools.count())
ROWS = 20_000
SHARDS = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StandaloneProcess]:
    server = StandaloneProcess(tmp_path_factory.mktemp("cluster") / "data", pchannels=4)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def name(cluster: StandaloneProcess) -> str:
    """A new collection of three shards."""
    chosen = next(_names)
    ran = await at(cluster, "collection", "create", chosen, "--shards", str(SHARDS))
    assert ran.code == 0, ran.err
    return chosen


async def at(cluster: StandaloneProcess, *arguments: str) -> Ran:
    return await walplane("--address", cluster.address, *arguments)


async def stored(cluster: StandaloneProcess, name: str) -> list[tuple[int, pa.Table]]:
    """(shard, rows) of every message, as `tail` prints them."""
    ran = await at(cluster, "tail", name, "-o", "json")
    assert ran.code == 0, ran.err
    found: list[tuple[int, pa.Table]] = []
    for each in ran.objects:
        if each["type"] == "INSERT":
            assert each["payload_encoding"] == "base64"
            table = pa.ipc.open_stream(base64.b64decode(each["payload"])).read_all()
            assert table.num_rows == each["rows"]
            found.append((int(each["vchannel"].rpartition("v")[2]), table))
    return found


async def numbers(cluster: StandaloneProcess, name: str) -> list[int]:
    """Column `n` of every stored row, sorted."""
    return sorted(n for _, table in await stored(cluster, name) for n in table["n"].to_pylist())


def row(number: int) -> dict[str, Any]:
    return {"n": number, "key": f"k{number % 97}", "text": "ü" * (number % 5)}


def csv(path: Path, count: int, bad: dict[int, str] | None = None) -> Path:
    """A table of `count` rows; lines of `bad` stand in place of their rows."""
    rows = [",".join(map(str, row(number).values())) for number in range(count)]
    for number, line in (bad or {}).items():
        rows[number] = line
    path.write_text("\n".join(["n,key,text", *rows]) + "\n")
    return path


async def test_csv_by_key(cluster: StandaloneProcess, name: str, tmp_path: Path) -> None:
    file = str(csv(tmp_path / "rows.csv", ROWS))
    ran = await at(cluster, "ingest", file, "--collection", name, "--key", "key", "-o", "json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.value["rows"] == ROWS
    assert ran.value["rows_per_second"] > 0
    tables = await stored(cluster, name)
    assert ran.value["messages"] == len(tables)
    found = sorted((each for _, t in tables for each in t.to_pylist()), key=lambda r: int(r["n"]))
    assert found == [row(number) for number in range(ROWS)]
    for shard, table in tables:
        assert {shard_of(key.encode(), SHARDS) for key in table["key"].to_pylist()} == {shard}
    for shard in range(SHARDS):
        order = [n for s, table in tables if s == shard for n in table["n"].to_pylist()]
        assert order == sorted(order), "rows of one shard keep their order"


async def test_parquet_in_turn(cluster: StandaloneProcess, name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pa_parquet.write_table(pa.Table.from_pylist([row(number) for number in range(ROWS)]), path)
    ran = await at(cluster, "ingest", str(path), "--collection", name, "--batch-rows", "1000")
    assert (ran.code, ran.err) == (0, "")
    assert re.match(r"20,000 rows in 20 messages acknowledged in .* rows/s", ran.out)
    tables = await stored(cluster, name)
    assert {shard for shard, _ in tables} == set(range(SHARDS))
    assert await numbers(cluster, name) == list(range(ROWS))


async def test_a_malformed_line_in_the_middle(
    cluster: StandaloneProcess, name: str, tmp_path: Path
) -> None:
    bad = ROWS // 2 + 7
    path = csv(tmp_path / "rows.csv", ROWS, {bad: "1,too,many,columns"})
    command = ["ingest", str(path), "--collection", name, "--batch-rows", "512"]
    ran = await at(cluster, *command)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert f"{path}:{bad + 2}: expected 3 columns, got 4: 1,too,many,columns" in ran.err
    assert f"the first {bad:,} rows are acknowledged" in ran.err
    assert await numbers(cluster, name) == list(range(bad))
    csv(path, ROWS)
    resume = re.search(r"--skip-rows \d+", ran.err)
    assert resume is not None
    ran = await at(cluster, *command, *resume[0].split())
    assert (ran.code, ran.err) == (0, "")
    assert await numbers(cluster, name) == list(range(ROWS))


async def test_a_malformed_json_line(cluster: StandaloneProcess, name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n{"n": 1}\n{"n": \n{"n": 3}\n')
    ran = await at(cluster, "ingest", str(path), "--collection", name, "--key", "n")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert f"{path}:3: not valid JSON" in ran.err
    assert "the first 2 rows are acknowledged" in ran.err
    assert await numbers(cluster, name) == [0, 1]


@pytest.mark.parametrize(
    ("file", "options", "code", "reason"),
    [
        ("rows.csv", ["--collection", "nowhere"], 1, "no collection 'nowhere'"),
        ("none.csv", ["--collection", "NAME"], 1, "none.csv: No such file"),
        ("rows.csv", ["--collection", "NAME", "--key", "k"], 2, "no column 'k'"),
        ("rows.csv", ["--collection", "NAME", "--format", "parquet"], 1, "not a whole Parquet"),
        ("rows.csv", ["--collection", "NAME", "--skip-rows", "11"], 2, "the file has 10 rows"),
        ("/dev/stdin", ["--collection", "NAME", "--format", "parquet"], 2, "come from a pipe"),
    ],
)
async def test_what_cannot_be_ingested(
    cluster: StandaloneProcess,
    name: str,
    tmp_path: Path,
    file: str,
    options: list[str],
    code: int,
    reason: str,
) -> None:
    csv(tmp_path / "rows.csv", 10)
    given = [name if option == "NAME" else option for option in options]
    ran = await at(cluster, "ingest", str(tmp_path / file), *given)
    assert ran.code == code
    assert ran.err.count("\n") == 1
    assert reason in ran.err
    assert await numbers(cluster, name) == []


@pytest.mark.parametrize("options", [[], ["--key", "key"]])
async def test_a_row_that_no_message_can_hold_is_named_with_nothing_behind_it(
    cluster: StandaloneProcess, name: str, tmp_path: Path, options: list[str]
) -> None:
    bad = 6_321
    path = csv(tmp_path / "rows.csv", ROWS, {bad: f"{bad},k,{'x' * ((16 << 20) - 100)}"})
    command = ["ingest", str(path), "--collection", name, "--batch-rows", "1000", *options]
    ran = await at(cluster, *command)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert f"row {bad + 1:,}: message of " in ran.err
    assert f"the first {bad:,} rows are acknowledged: mend it, then go on" in ran.err
    assert await numbers(cluster, name) == list(range(bad))
    csv(path, ROWS)
    ran = await at(cluster, *command, "--skip-rows", str(bad))
    assert (ran.code, ran.err) == (0, "")
    assert await numbers(cluster, name) == list(range(ROWS))


async def test_rows_may_come_from_a_pipe(cluster: StandaloneProcess, name: str) -> None:
    text = "".join(["n,text\n", *(f"{n},{'x' * 100}\n" for n in range(ROWS))]).encode()
    command = ["ingest", "/dev/stdin", "--collection", name, "--format", "csv"]
    ran = await walplane("--address", cluster.address, *command, stdin=text)
    assert (ran.code, ran.err) == (0, "")
    assert await numbers(cluster, name) == list(range(ROWS))
