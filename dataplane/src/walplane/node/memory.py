"""The memory that its container may use, and how much of it is in use. Layer: node.

Contract: reads two small files of the kernel's control group (version 2), which never blocks on a
disk; where nothing limits the memory, nothing is in use. Page cache, which the kernel takes back by
itself, does not count.
"""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes that may be used; None where nothing says so."""
    try:
        return int((cgroup / "memory.max").read_text()) or None
    except (OSError, ValueError):  # no such kernel, no container, or "max"
        return None


def memory_share(cgroup: Path = CGROUP) -> float:
    """The share in use, from 0 to 1."""
    limit = memory_limit(cgroup)
    if limit is None:
        return 0.0
    try:
        used = int((cgroup / "memory.current").read_text())
        for line in (cgroup / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                used -= int(value)
        return max(used, 0) / limit
    except (OSError, ValueError):
        return 0.0
