"""What a process says of its session. Layer: lease."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from walplane.lease.session import Session


class SessionCollector(Collector):
    """How fresh `session` is; nothing before its first renewal."""

    def __init__(self, session: Session) -> None:
        """Reads nothing yet."""
        self._session = session

    def collect(self) -> Iterator[Metric]:
        """The metric of now."""
        name, text = "walplane_session_age_seconds", "Since the latest renewal of the session."
        family = GaugeMetricFamily(name, text)
        if (age_s := self._session.age_s) is not None:
            family.add_metric([], age_s)
        yield family
