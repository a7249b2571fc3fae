"""The papers say what is: README's commands and program run, and every link leads somewhere."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from walplane.testkit.standalone import StandaloneProcess

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
ORDERS = """\
{"customer": "ada", "item": "pen"}
{"customer": "cleo", "item": "ink"}
{"customer": "ada", "item": "nib"}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shape(line: str) -> str:
    """A line of output without what differs from run to run: numbers, ids, width."""
    line = re.sub(r"standalone-[0-9a-f]{8}", "standalone-id", line)
    return re.sub(r"[\d,.]+", "0", " ".join(line.split()))


def commands() -> list[tuple[str, list[str]]]:
    """(command, output) of every console block."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


async def run(command: str, server: StandaloneProcess, folder: Path) -> str:
    """Runs a line of shell; returns what it printed."""
    environment = dict(os.environ, WALPLANE_ADDRESS=server.address)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, f"{command}: {out.decode()}"
    return out.decode()


@pytest.mark.timeout(240)
async def test_the_tour_prints_what_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text(ORDERS)
    (start, told), *rest = commands()
    assert start == "walplane standalone --data ./data --pchannels 16 &"
    assert told[0].startswith("ready")
    server = StandaloneProcess(tmp_path / "data", pchannels=16)
    await server.start()
    token = ""
    try:
        for command, shown in rest:
            given = re.sub(r"--from \S+@\S+", f"--from {token}", command)
            out = await run(given, server, tmp_path)
            expected = [shape(line.replace("127.0.0.1:7650", server.address)) for line in shown]
            assert sorted(map(shape, out.splitlines()))[: len(expected)] == sorted(expected)
            for found in re.findall(r'"resume_token": "([^"]+)"', out):
                token = found
    finally:
        await server.kill()


async def test_the_program_runs(tmp_path: Path) -> None:
    (program,) = blocks("python")
    example = (ROOT / "docs/examples/orders.py").read_text()
    assert program.strip() in example
    server = StandaloneProcess(tmp_path / "data", pchannels=2)
    await server.start()
    try:
        out = await run(
            f"{sys.executable} {ROOT}/docs/examples/orders.py {server.address}", server, tmp_path
        )
    finally:
        await server.kill()
    for payload in ("pen", "ink", "nib"):
        assert f"INSERT b'{payload}'" in out
    assert out.endswith("after the token: b'pad'\n")


@pytest.mark.parametrize("paper", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_lead_somewhere(paper: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", paper.read_text())
    assert [each for each in targets if not (paper.parent / each).exists()] == []
