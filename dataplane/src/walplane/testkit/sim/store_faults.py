"""What scenarios do to the segment store, and to the ways to it. Layer: testkit.

Contract: as `faults`; only where a cluster has a store.
"""

from __future__ import annotations

from walplane.testkit.sim.faults import Fault, Stage
from walplane.testkit.sim.objects import HOST

STORE_FAULTS: dict[str, tuple[int, Fault]] = {}
"""Weight and deed by name."""


def _fault(weight: int, deed: Fault) -> None:
    STORE_FAULTS[deed.__name__] = (weight, deed)


def store_away(stage: Stage, which: int, force: float) -> None:
    """It refuses everything for up to eight seconds."""
    if (store := stage.cluster.store) is not None:
        store.up = False
        stage.cluster.network.world(8.0 * force * force, setattr, store, "up", True)


def store_flaky(stage: Stage, which: int, force: float) -> None:
    """For a while it refuses, answers with an error, or takes seconds."""
    if (store := stage.cluster.store) is not None:
        name = ("fails", "unheard", "late")[which % 3]
        setattr(store.habits, name, 0.1 + 0.7 * force)
        stage.cluster.network.world(3.0, setattr, store.habits, name, 0.0)


def store_cut(stage: Stage, which: int, force: float) -> None:
    """One node cannot reach it, or does not hear of it, for up to eight seconds."""
    nodes, network = sorted(stage.cluster.nodes), stage.cluster.network
    if nodes:
        node = nodes[which % len(nodes)]
        way = (node, HOST) if which // len(nodes) % 2 else (HOST, node)
        network.cut(*way)
        network.world(8.0 * force * force, network.heal, *way)


for _weight, _deed in ((2, store_away), (4, store_flaky), (2, store_cut)):
    _fault(_weight, _deed)
