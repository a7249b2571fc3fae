"""Leases: who lives, who holds which PChannel under which term, who coordinates.

Knows the Kubernetes API (in `kube` only, imported when it is first used) and no node or
coordinator: those are passed in. Decisions are pure (`contract`, `decide`, `expiry`, `report`); the
loops around them (`watch`, `session`, `follower`, `leader`) do nothing but carry them out.
Layer: between node and coord above, and wal below.
"""
