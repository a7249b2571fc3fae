"""The operator's own metrics; labels are bounded. Layer: handlers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters of one process, in a registry of its own."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "walplane_operator_reconciles",
            "Reconciles of WALClusters.",
            ["result"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "walplane_operator_reconcile_seconds",
            "Duration of a reconcile.",
            buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
            registry=self.registry,
        )
        self.grants = Counter(
            "walplane_operator_grants",
            "PChannels granted.",
            ["reason"],
            registry=self.registry,
        )
        self.releases = Counter(
            "walplane_operator_releases",
            "PChannels asked back.",
            ["reason"],
            registry=self.registry,
        )
        self.conflicts = Counter(
            "walplane_operator_lease_conflicts",
            "Lease writes that somebody else was ahead of.",
            registry=self.registry,
        )
        self.expired = Counter(
            "walplane_operator_sessions_expired",
            "Sessions found dead by the clock.",
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "walplane_operator_watch_restarts",
            "Watches that began anew with a list.",
            ["kind"],
            registry=self.registry,
        )
        self.status_writes = Counter(
            "walplane_operator_status_writes",
            "Statuses written.",
            ["kind"],
            registry=self.registry,
        )
        self.leading = Gauge(
            "walplane_operator_leading",
            "Whether this process is the one that acts.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "walplane_operator_queue_length",
            "WALClusters that wait for a reconcile.",
            registry=self.registry,
        )
