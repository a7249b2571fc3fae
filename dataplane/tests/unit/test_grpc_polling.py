"""What `import walplane` does: it switches gRPC's event engine off, and loads nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import walplane

_SERVE = """
import asyncio
import os

import walplane
import grpc

async def serve():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
    await server.stop(None)

asyncio.run(serve())
print(os.environ["GRPC_EXPERIMENTS"])
"""


@pytest.mark.parametrize(
    ("chosen", "found"),
    [(None, "-event_engine_client,-event_engine_listener"), ("", ""), ("-tcp_rcv_lowat",) * 2],
)
def test_the_event_engine_is_off_unless_the_user_says_otherwise(
    chosen: str | None, found: str
) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"}
    if chosen is not None:
        environment["GRPC_EXPERIMENTS"] = chosen
    done = subprocess.run(
        [sys.executable, "-c", _SERVE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
    if chosen is None:
        assert done.stderr == "", "a name that gRPC does not know is an error line"


def test_the_release_of_grpc_is_found_without_what_reads_metadata() -> None:
    assert walplane._grpc_release() == version("grpcio")


def test_a_grpc_that_is_not_found_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), str(tmp_path / "archive.zip")])
    assert walplane._grpc_release() == ""


def test_it_loads_nothing_else() -> None:
    """What it loads, Ctrl-C would interrupt with a stack trace."""
    text = "import sys; old = set(sys.modules); import walplane; print(*{*sys.modules} - old)"
    assert _output_of(text) == ("walplane", "")


def test_the_version_is_that_of_the_package() -> None:
    assert walplane.__version__ == version("walplane")
    with pytest.raises(AttributeError, match="module 'walplane' has no attribute 'nothing'"):
        _ = walplane.nothing


_LOG = "import structlog; log = structlog.get_logger(); log.info('quiet'); log.warning('loud')"


@pytest.mark.parametrize("module", ["client", "embedded", "lease.watch"])
def test_a_program_that_says_nothing_about_logs_gets_warnings_on_standard_error(
    module: str,
) -> None:
    out, err = _output_of(f"import walplane.{module}; {_LOG}")
    assert out == ""
    assert "loud" in err
    assert "quiet" not in err


def test_the_logs_of_a_program_are_its_own() -> None:
    text = f"import structlog; structlog.configure(); import walplane.client; {_LOG}"
    out, err = _output_of(text)
    assert ("quiet" in out, "loud" in out, err) == (True, True, "")


def _output_of(text: str) -> tuple[str, str]:
    """Standard output and standard error of a program."""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=100
    )
    return done.stdout.strip(), done.stderr
