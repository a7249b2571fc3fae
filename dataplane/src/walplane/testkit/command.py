"""Runs the `walplane` command as users do: a process with pipes. Layer: testkit."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 60.0
_PROGRESS = re.compile(r"[\d,]+ (rows|lines) acknowledged")  # on a slow machine


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def told(self) -> list[str]:
        """Lines of standard error, but for those that only say how far it is."""
        return [line for line in self.err.splitlines() if not _PROGRESS.match(line)]

    @property
    def value(self) -> Any:  # noqa: ANN401 - whatever the command printed
        """Standard output as one JSON document."""
        return json.loads(self.out)


async def walplane(
    *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> Ran:
    """Runs `walplane ARGUMENTS` to its end.

    Raises:
        TimeoutError: it takes longer than `TIMEOUT_S`; it is killed then.
    """
    process = await start(*arguments, environment=environment)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def start(
    *arguments: str, environment: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Starts `walplane ARGUMENTS` with pipes; the caller ends it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "walplane", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
