"""The demo says VERIFIED only when it is true: each kind of loss is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from devservices.demo import verdict
from devservices.demo_check import Found, compare
from walplane.channel import shard_of

ROWS = 200
SHARDS = 4


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    lines = [f"{number},N{number % 17},{number * 3}" for number in range(ROWS)]
    path.write_text("\n".join(["row,tailnum,delay", *lines]) + "\n")
    return path


def intact(source: Path) -> Found:
    """What a cluster that lost nothing gives back."""
    table = pa_csv.read_csv(source)
    shards = [shard_of(key.encode(), SHARDS) for key in table["tailnum"].to_pylist()]
    parts = {
        shard: table.filter(pa.array([each == shard for each in shards])) for shard in range(SHARDS)
    }
    return Found({shard: part for shard, part in parts.items() if part.num_rows}, messages=9)


def lose(found: Found) -> None:
    shard = min(found.tables)
    found.tables[shard] = found.tables[shard].slice(1)


def double(found: Found) -> None:
    shard = min(found.tables)
    found.tables[shard] = pa.concat_tables([found.tables[shard], found.tables[shard].slice(0, 1)])


def alter(found: Found) -> None:
    shard = min(found.tables)
    table = found.tables[shard]
    delays = [value + 1 for value in table["delay"].to_pylist()]
    found.tables[shard] = table.set_column(2, "delay", pa.array(delays))


def misplace(found: Found) -> None:
    first, second, *_ = sorted(found.tables)
    found.tables[first], found.tables[second] = found.tables[second], found.tables[first]


def disorder(found: Found) -> None:
    found.faults.append("wal_0_1v0: tick 5 comes after 6")


def test_an_intact_table_is_verified(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = intact(source)
    assert verdict(found, compare(found, source, "tailnum", SHARDS)) == 0
    assert capsys.readouterr().out.startswith("VERIFIED: 200 rows in 9 messages")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lose, "1 rows are missing and 0 are there more than once"),
        (double, "0 rows are missing and 1 are there more than once"),
        (alter, "some rows are not as they were"),
        (misplace, "keys of other shards"),
        (disorder, "tick 5 comes after 6"),
    ],
)
def test_every_fault_is_told(
    source: Path,
    fault: Callable[[Found], None],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = intact(source)
    fault(found)
    assert verdict(found, compare(found, source, "tailnum", SHARDS)) == 1
    out = capsys.readouterr().out
    assert told in out
    assert "VERIFIED" not in out
