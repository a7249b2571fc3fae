"""A whole cluster inside a program: coordinator, node and log on one event loop. Layer: embedded.

What belongs here: what is put together the same way for a program (`open_embedded`) and for
`walplane standalone`. Signals, metrics and lines of output belong to the command.
"""

from walplane.embedded.cluster import ClusterOptions
from walplane.embedded.program import open_embedded, open_embedded_sync

__all__ = ["ClusterOptions", "open_embedded", "open_embedded_sync"]
