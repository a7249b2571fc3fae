"""The StreamingNode: the WALs it owns and their gRPC edge."""
