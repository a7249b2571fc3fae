"""What is remembered of sealed segments and dropped VChannels depends on ticks, not on order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walplane.wal.latest import Key, Latest

KEYS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), unique=True)


@given(KEYS, st.integers(1, 5), st.data())
def test_what_is_left_does_not_depend_on_the_order(
    keys: list[Key], most: int, data: st.DataObject
) -> None:
    kept, fell = _fill(data.draw(st.permutations(keys)), most)
    assert kept == set(sorted(keys)[-most:])
    assert kept | fell == set(keys)
    assert not kept & fell


def test_what_is_removed_leaves_room() -> None:
    latest: Latest[str] = Latest(2)
    for number, name in enumerate("ab"):
        assert latest.add((number, 0), name) is None
    latest.remove((0, 0))
    latest.remove((7, 0))  # never was there
    assert len(latest) == 1
    assert latest.add((2, 0), "c") is None
    assert latest.add((3, 0), "d") == "b"


def _fill(keys: list[Key], most: int) -> tuple[set[Key], set[Key]]:
    latest: Latest[Key] = Latest(most)
    fell = {key for each in keys if (key := latest.add(each, each)) is not None}
    return {key for key in keys if key not in fell}, fell
