from __future__ import annotations

from collections import Counter

from walplane.assignment.placement import place_vchannels


def test_shards_go_to_the_least_loaded_pchannels() -> None:
    assert place_vchannels({"a": 2, "b": 0, "c": 1}, 2) == ["b", "c"]


def test_vchannels_of_one_collection_stay_apart_even_where_that_is_not_the_least_loaded() -> None:
    assert sorted(place_vchannels({"a": 9, "b": 0, "c": 0}, 3)) == ["a", "b", "c"]


def test_more_shards_than_pchannels_are_spread_evenly() -> None:
    assert Counter(place_vchannels({"a": 0, "b": 0, "c": 0}, 7)).most_common() == [
        ("a", 3),
        ("b", 2),
        ("c", 2),
    ]


def test_equal_loads_are_filled_in_order() -> None:
    assert place_vchannels({"p_0": 0, "p_1": 0, "p_10": 0}, 3) == ["p_0", "p_1", "p_10"]


def test_what_is_served_comes_first_though_there_is_more_on_it() -> None:
    assert place_vchannels({"a": 0, "b": 9, "c": 5}, 2, unserved={"a"}) == ["c", "b"]


def test_vchannels_of_one_collection_stay_apart_even_where_one_has_to_wait() -> None:
    assert place_vchannels({"a": 0, "b": 0, "c": 0}, 4, unserved={"a"}) == ["b", "c", "a", "b"]


def test_where_nothing_is_served_the_loads_decide() -> None:
    assert place_vchannels({"a": 1, "b": 0}, 1, unserved=["a", "b"]) == ["b"]
