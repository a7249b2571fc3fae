"""How a load in a pod tells of itself: one file that is always whole. Layer: testkit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_state(directory: Path, state: dict[str, Any]) -> None:
    """Replaces `state.json` in `directory`; blocks."""
    partial = directory / "state.part"
    partial.write_text(json.dumps(state))
    os.replace(partial, directory / "state.json")
