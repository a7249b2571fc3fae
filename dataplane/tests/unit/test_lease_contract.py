from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from walplane.backends.claims import ClaimedByOtherError
from walplane.lease import contract
from walplane.lease.contract import Identity, PChannelLease, held_body
from walplane.lease.expiry import Expiry
from walplane.lease.leader import Claim, claim
from walplane.lease.report import (
    BACKEND_UNREACHABLE,
    MAX_BYTES,
    ChannelReport,
    ClientError,
    CoordinatorAwayError,
    CoordReport,
    NodeReport,
    address_in,
    reason_of,
)
from walplane.lease.store import ApiError
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.ports import StaleTerm

ME = Identity("demo-node-0", "1b2c", "aaaaaaaa")


def pchannel_body(holder: str = str(ME), **annotations: str) -> dict[str, Any]:
    known = {"channel": "demo_3", "term": "7"} | annotations
    return {
        "metadata": {
            "name": "demo-pch-3",
            "uid": "u",
            "resourceVersion": "5",
            "annotations": {
                "somebody.else/key": "kept",
                **{f"walplane.dev/{key.replace('_', '-')}": text for key, text in known.items()},
            },
        },
        "spec": {"holderIdentity": holder, "strategy": "OldestEmulationVersion"},
    }


def test_an_identity_reads_as_it_was_written() -> None:
    assert Identity.parse(str(ME)) == ME
    for text in ("", "pod", "pod_uid", "a_b_c_d", "__"):
        assert Identity.parse(text) is None
    assert contract.pod_of(str(ME)) == "demo-node-0"
    assert contract.pod_of("by-hand") == "by-hand"


def test_names_follow_the_index_of_the_pchannel() -> None:
    assert contract.pchannel_lease_name("demo", "by-dev-rootcoord-dml_12") == "demo-pch-12"
    assert contract.coord_lease_name("demo") == "demo-coord"
    assert contract.selector("demo") == "walplane.dev/cluster=demo"
    assert contract.selector("demo", contract.PCHANNEL).endswith(",walplane.dev/lease=pchannel")


def test_a_micro_time_has_exactly_six_fraction_digits() -> None:
    assert contract.micro_time(1_767_323_045_000) == "2026-01-02T03:04:05.000000Z"
    assert contract.micro_time(1_767_323_045_678) == "2026-01-02T03:04:05.678000Z"


def test_a_pchannel_lease_is_read_and_its_edits_keep_what_they_do_not_know() -> None:
    body = pchannel_body(ready_term="7", release="7", adopt="old")
    lease = PChannelLease.parse(body)
    assert (lease.channel, lease.holder, lease.term) == ("demo_3", str(ME), 7)
    assert (lease.ready_term, lease.release, lease.adopt) == (7, 7, "old")
    assert lease.served
    before = json.dumps(body)

    given_back = PChannelLease.parse(lease.given_back())
    assert (given_back.holder, given_back.term) == ("", 7)
    assert (given_back.ready_term, given_back.release) == (0, 0)
    assert given_back.body["metadata"]["annotations"]["somebody.else/key"] == "kept"
    assert given_back.body["spec"]["strategy"] == "OldestEmulationVersion"
    assert given_back.body["metadata"]["resourceVersion"] == "5", "a PUT of what was read"

    confirmed = PChannelLease.parse(PChannelLease.parse(pchannel_body()).confirmed())
    assert (confirmed.ready_term, confirmed.served) == (7, True)
    assert json.dumps(body) == before, "edits change copies"


def test_nobody_serves_without_holder_or_term() -> None:
    assert not PChannelLease.parse(pchannel_body("", ready_term="7")).served
    assert not PChannelLease.parse(pchannel_body(ready_term="6")).served
    assert not PChannelLease.parse(pchannel_body(term="0")).served


@pytest.mark.parametrize("wrong", [{"term": "seven"}, {"term": "-1"}, {"channel": ""}])
def test_a_malformed_lease_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"demo-pch-3"):
        PChannelLease.parse(pchannel_body(**wrong))


def held(base: dict[str, Any] | None, holder: str, now: str = "t1") -> dict[str, Any]:
    return held_body(base, name="n", labels={"l": "1"}, holder=holder, duration_s=9.6, now=now)


def test_a_session_lease_is_made_renewed_and_taken_over() -> None:
    made = held(None, "a", "t1")
    assert made["spec"] == {
        "holderIdentity": "a",
        "acquireTime": "t1",
        "renewTime": "t1",
        "leaseDurationSeconds": 10,
        "leaseTransitions": 0,
    }
    renewed = held(made, "a", "t2")
    assert (renewed["spec"]["acquireTime"], renewed["spec"]["renewTime"]) == ("t1", "t2")
    taken = held(renewed, "b", "t3")
    assert (taken["spec"]["acquireTime"], taken["spec"]["leaseTransitions"]) == ("t3", 1)
    assert contract.renewal_of(renewed) != contract.renewal_of(taken)


def test_a_lease_expires_after_a_full_duration_of_live_watching_only() -> None:
    expiry = Expiry()
    assert expiry.left("a", 10, 0) is None
    expiry.saw("a", 1, 0)
    assert not expiry.expired("a", 10, 100), "not live yet"
    expiry.live(100)
    assert expiry.left("a", 10, 104) == 6
    expiry.saw("a", 1, 105)
    assert expiry.left("a", 10, 105) == 5, "seeing it unchanged is no renewal"
    expiry.saw("a", 2, 106)
    assert not expiry.expired("a", 10, 115.9)
    assert expiry.expired("a", 10, 116)
    expiry.lost()
    assert expiry.left("a", 10, 200) is None, "nothing expires unwatched"
    expiry.live(200)
    assert expiry.left("a", 10, 200) == 10, "one full duration again"
    expiry.gone("a")
    assert expiry.left("a", 10, 300) is None


def test_the_coordinators_lease_is_taken_only_when_it_is_free() -> None:
    me = Identity("demo-coord-a", "u1", "11111111")
    earlier = str(Identity("demo-coord-a", "u1", "00000000"))
    namesake = str(Identity("demo-coord-a", "u0", "00000000"))
    other = str(Identity("demo-coord-b", "u2", "22222222"))
    assert claim("", me, gone=False) is Claim.TAKE
    assert claim(str(me), me, gone=False) is Claim.MINE
    assert claim(earlier, me, gone=False) is Claim.TAKE, "that container is dead"
    for holder in (namesake, other, "by-hand"):
        assert claim(holder, me, gone=False) is Claim.WAIT
        assert claim(holder, me, gone=True) is Claim.TAKE


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.4, 2.5, 10.4])
def test_observers_read_no_shorter_duration_than_the_holder_relies_on(seconds: float) -> None:
    body = held_body(None, name="n", labels={}, holder="h", duration_s=seconds, now="now")
    assert seconds <= contract.duration_of(body, 0) < seconds + 1
    assert isinstance(body["spec"]["leaseDurationSeconds"], int)


def test_a_node_report_has_the_form_of_the_contract() -> None:
    channel = ChannelReport(7, 9, 100, 90, 80, 12, "OpenFailed", "why", 3)
    report = NodeReport(True, "10.0.0.1:7651", {"demo_3": channel})
    assert json.loads(report.to_json()) == {
        "draining": True,
        "address": "10.0.0.1:7651",
        "channels": {
            "demo_3": {
                **{"term": 7, "termFloor": 9, "timeTick": 100, "watermark": 90},
                **{"checkpoint": 80, "vchannels": 12, "reason": "OpenFailed"},
                **{"lastError": "why", "attempts": 3},
            }
        },
    }
    assert address_in(report.to_json()) == "10.0.0.1:7651"
    assert [address_in(text) for text in ("", "{", "[]", '{"address": null}')] == [""] * 4


def test_a_report_that_grows_too_long_keeps_what_tells_an_error() -> None:
    name = "a-name-as-long-as-the-custom-resource-takes-one-that-is-60"
    fine = {f"{name}_{n}": ChannelReport(n, time_tick=1 << 60) for n in range(1024)}
    bad = {f"{name}_{n}": ChannelReport(n, last_error="é" * 300) for n in range(1000, 1024)}
    kept = json.loads(NodeReport(channels=fine | bad).to_json())["channels"]
    assert sorted(kept) == sorted(bad)
    assert all(len(each["lastError"]) == 300 for each in kept.values())
    opening = {f"{name}_{n}": ChannelReport(n) for n in range(20)}
    kept = json.loads(NodeReport(channels=fine | opening | bad).to_json())["channels"]
    assert sorted(kept) == sorted(opening | bad), "an open that is reported is left to its node"
    all_bad = {f"demo_{n}": ChannelReport(n, last_error="é" * 900) for n in range(1024)}
    text = NodeReport(channels=all_bad).to_json()
    assert len(text.encode()) <= MAX_BYTES
    assert len(json.loads(text)["channels"]) == 1024


def test_a_report_that_no_text_makes_short_enough_leaves_entries_out_and_says_how_many() -> None:
    each = ChannelReport(
        *(12, 0, 1 << 62, 1 << 62, 1 << 62, 10),
        *(BACKEND_UNREACHABLE, "no acknowledgement of a frame within 1 s", 120),
    )
    name = "a-name-as-long-as-the-custom-resource-takes-one-that-is-60"
    channels = {f"{name}_{n}": each for n in range(1100)}
    channels[f"{name}_999"] = replace(each, term_floor=99)  # its next grant has to know
    text = NodeReport(channels=channels).to_json()
    assert MAX_BYTES - 300 < len(text.encode()) <= MAX_BYTES
    content = json.loads(text)
    kept = content["channels"]
    assert content["leftOut"] == len(channels) - len(kept) > 0
    assert {each["lastError"] for each in kept.values()} == {"n"}, "without, an open under way"
    assert {each["reason"] for each in kept.values()} == {BACKEND_UNREACHABLE}
    last = sorted(kept.keys() - {f"{name}_999"})[-1]
    assert {n for n in channels if n <= last} <= kept.keys(), "in the order of their names"
    assert kept[f"{name}_999"]["termFloor"] == 99
    assert text == NodeReport(channels=dict(reversed(channels.items()))).to_json()


def test_a_coordinator_report_has_the_form_of_the_contract() -> None:
    errors = {f"demo_{n}": ClientError(n, "CHANNEL_FENCED", "x" * 400) for n in range(70)}
    content = json.loads(CoordReport(False, "a:1", True, "Unreachable", "why", errors).to_json())
    assert content["leading"] is True
    assert content["backend"] == {"reachable": False, "reason": "Unreachable", "message": "why"}
    assert len(content["errors"]) == 64
    told = {"term": 0, "code": "CHANNEL_FENCED", "message": "x" * 300}
    assert content["errors"]["demo_0"] == told
    assert json.loads(CoordReport().to_json())["backend"]["reachable"] is True


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StaleTerm("demo_0", 3, 9), "StaleTerm"),
        (WalError(ErrorCode.UNRECOVERABLE, "damaged"), "DataLoss"),
        (WalError(ErrorCode.DATA_TRUNCATED, "gone"), "DataLoss"),
        (ClaimedByOtherError("demo_0", "ns/demo/uid"), "ClaimedByOther"),
        (CoordinatorAwayError("away"), "CoordinatorUnreachable"),
        (WalError(ErrorCode.INNER, "no broker"), "BackendUnreachable"),
        (WalError(ErrorCode.CHANNEL_FENCED, "fenced"), "Stopped"),
        (ApiError(0, "no API server"), "Stopped"),
        (RuntimeError("a bug"), "Stopped"),
    ],
)
def test_every_error_has_its_word(error: Exception, reason: str) -> None:
    assert reason_of(error, "Stopped") == reason
