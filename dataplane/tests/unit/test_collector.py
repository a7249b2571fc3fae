"""The collector of reference cycles in processes that serve."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from walplane.runtime import keep_what_is_there


class _Linked:
    """May be part of a cycle."""

    def __init__(self) -> None:
        self.other: _Linked | None = None


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_there_is_passed_over_and_what_comes_is_not() -> None:
    kept = _Linked()
    kept.other = kept
    keep_what_is_there()
    assert gc.get_freeze_count() > 10_000
    assert not any(each is kept for each in gc.get_objects())
    later = _Linked()
    later.other = later
    gone = weakref.ref(later)
    del later
    gc.collect()
    assert gone() is None


def test_garbage_is_collected_first() -> None:
    garbage = _Linked()
    garbage.other = garbage
    gone = weakref.ref(garbage)
    del garbage
    keep_what_is_there()
    assert gone() is None
