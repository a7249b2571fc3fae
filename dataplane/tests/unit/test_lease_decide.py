from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from walplane.lease.contract import PChannelLease
from walplane.lease.decide import Action, Local, Mode, Phase, decide

ME = "demo-node-0_uid_aaaaaaaa"
EARLIER_ME = "demo-node-0_uid_bbbbbbbb"
OTHER = "demo-node-1_uid_cccccccc"
STAYING = Mode.STAYING

HOLDERS = (ME, EARLIER_ME, OTHER, "")
TERMS = range(4)


def lease(holder: str = ME, term: int = 3, ready: int = 0, release: int = 0) -> PChannelLease:
    return PChannelLease("demo-pch-0", "demo_0", holder, term, ready, release)


def serving(term: int = 3) -> Local:
    return Local(Phase.SERVING, term, seen=term, over=0)


def test_a_grant_is_opened_confirmed_and_then_left_alone() -> None:
    assert decide(lease(), ME, Local(), STAYING) is Action.OPEN
    assert decide(lease(), ME, Local(Phase.OPENING, 3, 3), STAYING) is Action.NOTHING
    assert decide(lease(), ME, serving(), STAYING) is Action.CONFIRM
    assert decide(lease(ready=3), ME, serving(), STAYING) is Action.NOTHING


@pytest.mark.parametrize("holder", [EARLIER_ME, OTHER, ""])
@pytest.mark.parametrize("phase", [Phase.OPENING, Phase.SERVING, Phase.CLOSING])
def test_another_holder_ends_it_at_once(holder: str, phase: Phase) -> None:
    local = Local(phase, 3, seen=3)
    assert decide(lease(holder), ME, local, STAYING) is Action.STOP
    assert decide(lease(holder, 4), ME, local, STAYING) is Action.STOP


def test_a_higher_term_ends_the_present_one_even_when_it_is_granted_to_the_same_process() -> None:
    assert decide(lease(term=4), ME, serving(3), STAYING) is Action.STOP
    assert decide(lease(term=4), ME, Local(seen=4, over=3), STAYING) is Action.OPEN


def test_the_grant_of_an_earlier_process_of_the_same_pod_is_no_grant() -> None:
    for mode in Mode:
        assert decide(lease(EARLIER_ME, ready=3), ME, Local(), mode) is Action.NOTHING


def test_a_term_lower_than_seen_and_a_missing_lease_are_no_orders() -> None:
    for holder in HOLDERS:
        assert decide(lease(holder, 2), ME, serving(3), STAYING) is Action.NOTHING
        assert decide(lease(holder, 2), ME, Local(seen=3), STAYING) is Action.NOTHING
    for phase in Phase:
        assert decide(None, ME, Local(phase, 3, 3), STAYING) is Action.NOTHING


def test_what_was_opened_and_is_not_held_any_more_is_given_back_and_never_opened_again() -> None:
    over = Local(seen=3, over=3)
    assert decide(lease(), ME, over, STAYING) is Action.GIVE_BACK
    assert decide(lease(ready=3), ME, over, STAYING) is Action.GIVE_BACK
    assert decide(lease(term=4), ME, over, STAYING) is Action.OPEN


def test_what_is_asked_back_is_closed_first_and_given_back_then() -> None:
    asked = lease(ready=3, release=3)
    assert decide(asked, ME, serving(), STAYING) is Action.CLOSE
    assert decide(asked, ME, Local(Phase.OPENING, 3, 3), STAYING) is Action.CLOSE
    assert decide(asked, ME, Local(Phase.CLOSING, 3, 3), STAYING) is Action.NOTHING
    assert decide(asked, ME, Local(seen=3, over=3), STAYING) is Action.GIVE_BACK
    assert decide(asked, ME, Local(seen=3), STAYING) is Action.GIVE_BACK, "never opened"
    assert decide(lease(ready=3, release=2), ME, serving(), STAYING) is Action.NOTHING, "of old"


def test_a_draining_process_serves_on_and_takes_nothing_new() -> None:
    assert decide(lease(ready=3), ME, serving(), Mode.DRAINING) is Action.NOTHING
    assert decide(lease(), ME, serving(), Mode.DRAINING) is Action.CONFIRM
    assert decide(lease(term=4), ME, Local(seen=3), Mode.DRAINING) is Action.GIVE_BACK
    assert decide(lease(release=3), ME, serving(), Mode.DRAINING) is Action.CLOSE
    assert decide(None, ME, serving(), Mode.DRAINING) is Action.CLOSE, "nobody will ask for it"


def test_a_leaving_process_gives_everything_back() -> None:
    assert decide(lease(ready=3), ME, serving(), Mode.LEAVING) is Action.CLOSE
    assert decide(lease(), ME, Local(Phase.OPENING, 3, 3), Mode.LEAVING) is Action.CLOSE
    assert decide(lease(), ME, Local(), Mode.LEAVING) is Action.GIVE_BACK
    assert decide(lease(OTHER), ME, Local(), Mode.LEAVING) is Action.NOTHING


def all_leases() -> list[PChannelLease | None]:
    combinations = itertools.product(HOLDERS, TERMS, TERMS, TERMS)
    return [None, *(lease(*each) for each in combinations)]


def all_locals() -> list[Local]:
    found = [Local(seen=seen, over=over) for seen in TERMS for over in range(seen + 1)]
    for phase in (Phase.OPENING, Phase.SERVING, Phase.CLOSING):
        found += [
            Local(phase, term, seen, over)
            for term, seen in itertools.product(range(1, 4), TERMS)
            for over in range(term)
            if seen >= term
        ]
    return found


def test_over_all_that_can_be_seen_the_rules_hold() -> None:
    """Every Lease with every state: a few thousand cases, checked against the contract's words."""
    cases = 0
    for seen, local, mode in itertools.product(all_leases(), all_locals(), Mode):
        action = decide(seen, ME, local, mode)
        cases += 1
        if seen is None or seen.term < local.seen:
            assert action in (Action.NOTHING, Action.CLOSE)
            assert action is Action.NOTHING or (seen is None and mode is not STAYING)
            continue
        ours = seen.holder == ME
        if action in (Action.OPEN, Action.CONFIRM, Action.GIVE_BACK, Action.CLOSE):
            assert ours, "only what is its own is touched"
        if action is Action.OPEN:
            assert seen.term > local.over
            assert not local.active
            assert mode is STAYING
        if action is Action.GIVE_BACK:
            assert not local.active, "what is given back is closed"
        if action is Action.CONFIRM:
            assert (local.phase, local.term) == (Phase.SERVING, seen.term)
        if local.active and (not ours or seen.term > local.term):
            assert action is Action.STOP
    assert cases > 10_000


def test_every_way_ends_with_nothing_left_to_do() -> None:
    """Carrying out the steps, one after the other, comes to rest."""
    for start, mode in itertools.product(all_locals(), Mode):
        for seen in all_leases():
            local, now = start, seen
            for _ in range(6):
                action = decide(now, ME, local, mode)
                if action is Action.NOTHING:
                    break
                local, now = carried_out(action, now, local)
            else:
                pytest.fail(f"{start} {mode} {seen} never rests")


def carried_out(
    action: Action, now: PChannelLease | None, local: Local
) -> tuple[Local, PChannelLease | None]:
    idle = replace(local, phase=Phase.IDLE, term=0, over=max(local.over, local.term))
    if action in (Action.STOP, Action.CLOSE) or now is None:
        return idle, now
    local = replace(local, seen=max(local.seen, now.term))
    if action is Action.OPEN:
        return replace(local, phase=Phase.SERVING, term=now.term), now
    if action is Action.CONFIRM:
        return local, replace(now, ready_term=now.term)
    return replace(local, over=max(local.over, now.term)), replace(now, holder="", ready_term=0)
