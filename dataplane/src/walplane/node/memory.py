"""How much of the memory that its container may use is in use. Layer: node.

Contract: reads two small files of the kernel's control group (version 2), which never blocks on a
disk; where nothing limits the memory, nothing is in use. Page cache, which the kernel takes back by
itself, does not count.
"""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def memory_share(cgroup: Path = CGROUP) -> float:
    """The share in use, from 0 to 1."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return 0.0
        used = int((cgroup / "memory.current").read_text())
        for line in (cgroup / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                used -= int(value)
        return max(used, 0) / int(limit)
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0  # no such kernel, or no container
