"""Collections, partitions, schema versions and segments of one PChannel (rules §8)."""
