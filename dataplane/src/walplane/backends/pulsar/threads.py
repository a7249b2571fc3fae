"""What the interpreter keeps about pulsar-client's own threads. Layer: backends.

A thread that Python did not start gets an interpreter state for each callback, which is thrown away
behind it: two maps and unmaps of memory per acknowledgement, each of which stops all processors
that run this process. One that was kept costs some 20 KiB until the process ends.
"""

from __future__ import annotations

import ctypes
import threading

_this_thread = threading.local()  # lives as long as the state that is kept


def keep_thread_state() -> None:
    """Keeps the calling thread's state for its next callback; to be called in one of them."""
    if not hasattr(_this_thread, "kept"):
        _this_thread.kept = ctypes.pythonapi.PyGILState_Ensure()  # never released
