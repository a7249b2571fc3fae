"""Both halves of the contract of Leases say the same: the operator's, and that of nodes."""

from __future__ import annotations

import pytest

from walplane.lease import contract, report
from walplane.wal import status
from walplane_operator.api import names
from walplane_operator.plan import channels, cluster_status


@pytest.mark.parametrize("holder", ["demo-node-0_uid_abc", "", "by-hand", "by_hand", "a_b_c_d"])
def test_a_holder_means_the_same_pod_to_both(holder: str) -> None:
    assert names.pod_of(holder) == contract.pod_of(holder)


def test_leases_have_the_same_names_for_both() -> None:
    assert names.pchannel_lease("demo", 12) == contract.pchannel_lease_name("demo", "wal_12")
    assert names.API_VERSION == contract.CLUSTER_API_VERSION
    assert names.coord("demo") == contract.coord_lease_name("demo")


def test_what_nodes_report_is_what_the_operator_looks_for() -> None:
    assert set(channels._WAITS_FOR_A_PERSON_S) == {report.DATA_LOSS, report.CLAIMED}
    assert {status.QUARANTINED, status.SEGMENTS_WAIT} == cluster_status._HELD_UP
    assert channels.OPEN_FAILED == report.OPEN_FAILED
