"""What the interpreter keeps about pulsar-client's own threads. Layer: backends.

A thread that Python did not start gets an interpreter state for each callback, which is thrown away
behind it: two maps and unmaps of memory per acknowledgement, each of which stops all processors
that run this process. One that was kept costs 5 KiB until the process ends, and every open of a log
has a thread of its own: so those of the first thousand are kept.
"""

from __future__ import annotations

import ctypes
import itertools
import threading

_MOST_KEPT = 1000

_this_thread = threading.local()  # lives as long as the state that is kept
_kept = itertools.count()


def keep_thread_state() -> None:
    """Keeps the calling thread's state for its next callback; to be called in one of them."""
    if not hasattr(_this_thread, "kept") and next(_kept) < _MOST_KEPT:
        _this_thread.kept = ctypes.pythonapi.PyGILState_Ensure()  # never released
