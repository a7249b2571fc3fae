"""Generates `walplane/rpc/v1` from `dataplane/proto`; `python -m devservices.protos [OUT]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "dataplane" / "proto"
OUT = ROOT / "dataplane" / "src"


def generate(out: Path) -> None:
    """Writes the message, stub and service modules of every proto below `out`."""
    files = sorted(str(path) for path in PROTO.rglob("*.proto"))
    flags = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    bin_dir = Path(sys.executable).parent
    plugin = f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", plugin, *flags, *files]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
