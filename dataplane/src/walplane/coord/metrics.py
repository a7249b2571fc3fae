"""The metrics of one coordinator, made when they are asked for. Layer: coord.

Contract: nothing here runs unless somebody scrapes; what is shown is read on the event loop. One
that stands by shows only that it does not lead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from walplane.coord.coord import Coord
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import coord_pb2

_STATE = "CHANNEL_STATE_"


class CoordCollector(Collector):
    """What the coordinator says of itself; `leading` gives it while it leads."""

    def __init__(self, leading: Callable[[], Coord | None]) -> None:
        """Reads nothing yet."""
        self._leading = leading

    def collect(self) -> Iterator[Metric]:
        """Every metric of now."""
        coord = self._leading()
        text = "Whether this process leads."
        yield GaugeMetricFamily("walplane_coord_leading", text, value=float(coord is not None))
        if coord is None:
            return
        for name, help_text, value in (
            ("term", "The coordinator's own term.", coord.term),
            ("broadcasts_pending", "Changes not done.", coord.broadcasts.pending),
            ("discovery_streams", "Clients that are told.", coord.discovery.streams),
            ("oracle_lead", "Ticks left below the mark.", coord.oracle.left),
            ("collections", "In the catalog.", len(coord.catalog.collections())),
        ):
            yield GaugeMetricFamily(f"walplane_coord_{name}", help_text, value=value)
        for name, help_text, value in (
            ("broadcast_refusals", "Appends tried again.", coord.broadcasts.refusals),
            ("assignment_changes", "Snapshots of who serves what.", coord.discovery.changes),
        ):
            yield CounterMetricFamily(f"walplane_coord_{name}", help_text, value=value)
        yield _channels(coord)


def _channels(coord: Coord) -> Metric:
    family = GaugeMetricFamily("walplane_coord_pchannels", "By state.", labels=["state"])
    try:
        assignments = coord.discovery.latest().assignments
    except WalError:  # it is ending
        return family
    names = coord_pb2.ChannelState.Name
    counted = Counter(names(each.state).removeprefix(_STATE) for each in assignments)
    for name in coord_pb2.ChannelState.keys():
        family.add_metric([name.removeprefix(_STATE)], counted[name.removeprefix(_STATE)])
    return family
