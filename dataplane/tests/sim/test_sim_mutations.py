"""The simulation notices each safeguard that is switched off."""

from __future__ import annotations

import pytest

from walplane.testkit.sim.judge import undisturbed
from walplane.testkit.sim.mutations import MUTATIONS, Mutation, hunt
from walplane.testkit.sim.store_mutations import STORE_MUTATIONS
from walplane.testkit.sim.user_mutations import USER_MUTATIONS


@pytest.mark.parametrize(
    "mutation", (*MUTATIONS, *STORE_MUTATIONS, *USER_MUTATIONS), ids=lambda mutation: mutation.name
)
def test_a_safeguard_that_is_off_is_noticed(mutation: Mutation) -> None:
    with undisturbed() as free:
        caught = hunt(mutation, free)
    assert caught.verdict is not None, f"{mutation.name} got away in {mutation.within} seeds"
