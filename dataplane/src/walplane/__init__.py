"""walplane: a streaming write-ahead log, run on Kubernetes by its own operator."""

from importlib.metadata import version as _version

__version__ = _version("walplane")
