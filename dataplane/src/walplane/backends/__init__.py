"""Where topics live: the `Backend` interface, its registry and one module per backend.

A backend is dumb: it appends opaque records, gives their ids, reads them back in order, fences the
older writer, and truncates. Terms, ticks and frames are the business of `walplane.wal`. Every
backend passes the one suite in `walplane.testkit.conformance`. Backends do not know each other.
"""
