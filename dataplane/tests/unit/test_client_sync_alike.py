"""The blocking classes have what those for an event loop have, under the same parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import pytest

from walplane.client import (
    NamedProducer,
    Reader,
    StreamingClient,
    SyncReader,
    SyncStreamingClient,
    SyncTxn,
    Txn,
)
from walplane.client.sync_named import SyncNamedProducer

ONLY_WITH_A_LOOP = {"entries"}  # reads a log for checking it
ONLY_BLOCKING = {"batches"}  # a reader's, without the reader
OF_A_LOOP = {"connect": {"runtime", "local_nodes", "dial"}}  # parameters
ENDS_BY_DEFAULT = {"reader", "read"}  # where the others follow

_Parameters = Mapping[str, tuple[object, object]]


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(kind: type, name: str) -> _Parameters:
    """Kind and default of each parameter; annotations differ where one class names the other."""
    method = getattr(kind, name)
    if isinstance(method, property):
        return {}
    found = inspect.signature(method).parameters
    return {each.name: (each.kind, each.default) for each in found.values()}


def expected(name: str) -> _Parameters:
    left_out = OF_A_LOOP.get(name, set())
    found = {k: v for k, v in parameters(StreamingClient, name).items() if k not in left_out}
    if name in ENDS_BY_DEFAULT:
        assert found["follow"][1] is True
        found["follow"] = (found["follow"][0], False)
    return found


def test_the_clients_have_the_same_calls() -> None:
    there, here = public(StreamingClient), public(SyncStreamingClient)
    assert there - here == ONLY_WITH_A_LOOP
    assert here - there == ONLY_BLOCKING


@pytest.mark.parametrize("name", sorted(public(StreamingClient) - ONLY_WITH_A_LOOP))
def test_a_call_takes_the_same_in_both_clients(name: str) -> None:
    assert parameters(SyncStreamingClient, name) == expected(name)


def test_batches_take_what_a_reader_takes() -> None:
    assert parameters(SyncStreamingClient, "batches") == expected("reader")


@pytest.mark.parametrize(
    ("there", "here"), [(Reader, SyncReader), (Txn, SyncTxn), (NamedProducer, SyncNamedProducer)]
)
def test_what_the_clients_make_has_the_same_calls(there: type, here: type) -> None:
    names = public(there) - {"trace"}  # of the client itself
    assert names <= public(here)
    for name in names:
        assert parameters(here, name) == parameters(there, name), name
