"""What ends a process while it loads. Layer: lowest; loads next to nothing."""

from __future__ import annotations

import os
import signal
from types import FrameType


def end_on(number: signal.Signals) -> None:
    """Has the signal end this process as it does by default, until another handler takes it over.

    Also process 1, as which a container's command runs: the kernel gives that one no defaults, so
    a pod that is told to end in its first seconds would live on until its grace period is over. A
    signal that is ignored stays ignored.
    """
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, _end if os.getpid() == 1 else signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)  # as a shell calls it; nothing is begun that had to be ended
