"""What a failed end-to-end test is told with."""

from __future__ import annotations

import json

from devservices.e2e.story import complaints, moves


def line(pod: str, level: str, event: str, second: int, **more: object) -> str:
    said = {**more, "event": event, "level": level, "timestamp": f"2026-01-01T10:00:{second:02}Z"}
    return f"[pod/{pod}] {json.dumps(said)}"


def test_each_complaint_is_told_once_with_its_times() -> None:
    log = [
        line("a", "info", "opened", 1),
        line("a", "warning", "watch lost", 2, error="first"),
        line("b", "warning", "watch lost", 3, error="other"),
        line("a", "warning", "watch lost", 9, error="last"),
        "[pod/b] Segmentation fault",
    ]
    told = complaints("\n".join(log)).splitlines()
    assert len(told) == 3
    assert told[0].startswith("[pod/a] 2x watch lost 10:00:02Z to 10:00:09Z: ")
    assert '"last"' in told[0]
    assert told[1].startswith("[pod/b] 1x watch lost 10:00:03Z")
    assert told[2] == "[pod/b] 1x Segmentation fault"


def test_the_last_terms_say_why() -> None:
    history = [
        {"term": 4, "node": "n-1", "since": "2026-01-01T10:00:09Z", "reason": "NodeExpired"},
        {"term": 3, "node": "n-0", "since": "2026-01-01T09:00:00Z"},
    ]
    moved = {"metadata": {"name": "demo-0"}, "status": {"history": history}}
    new = {"metadata": {"name": "demo-1"}}
    first, second = moves([moved, new]).splitlines()
    assert first == "demo-0: 4 NodeExpired n-1 10:00:09Z; 3  n-0 09:00:00Z"
    assert second == "demo-1: "
