"""Collections, partitions, schema versions and segments of one PChannel (semantics §8)."""
