"""The operator of walplane: WALClusters and PChannels become pods, Leases and status.

Layers, lowest first: `api` (types, no I/O), `manifests` and `plan` (pure), `apply` (the only
writes), `handlers` (what is watched, the queue, the process).
"""
