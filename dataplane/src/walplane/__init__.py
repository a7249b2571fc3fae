"""walplane: a streaming write-ahead log, run on Kubernetes by its own operator.

Loads next to nothing: Ctrl-C while this is loaded would show the user of the command a stack trace.
"""

import os as _os
import sys as _sys

__version__: str

_NO_EVENT_ENGINE = "-event_engine_client,-event_engine_listener"
_MEASURED = "1.85."


def __getattr__(name: str) -> str:
    """`__version__`, once it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    global __version__
    __version__ = version("walplane")
    return __version__


def _poll_grpc_in_place() -> None:
    """Has gRPC poll its sockets on the thread that reads its answers, as it did until 1.79.

    Its event engine hands each message through two threads more, either way: a lone append pays
    0.1 to 0.2 ms of 2.8 for them. Takes effect before gRPC is imported. Does nothing for a release
    that was not measured, which may not know these switches any more and say so on standard error,
    nor when the user has set GRPC_EXPERIMENTS.
    """
    if _grpc_release().startswith(_MEASURED):
        _os.environ.setdefault("GRPC_EXPERIMENTS", _NO_EVENT_ENGINE)


def _grpc_release() -> str:
    """Of the gRPC that is installed, as its folder of metadata says; empty when there is none."""
    prefix, suffix = "grpcio-", ".dist-info"
    for folder in _sys.path:
        try:
            names = _os.listdir(folder)
        except OSError:  # nothing there, or an archive
            continue
        for name in names:
            if name.startswith(prefix) and name.endswith(suffix):
                return name[len(prefix) : -len(suffix)]
    return ""


_poll_grpc_in_place()  # here, since whatever imports gRPC for walplane imports this first
