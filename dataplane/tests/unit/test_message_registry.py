"""The registry, row by row, against a second copy of it. Wire numbers are literal here."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from google.protobuf.message import Message

from walplane.message import keys
from walplane.message.keys import Domain, ResourceKey, in_locking_order
from walplane.message.registry import (
    TABLE,
    Dispatch,
    MessageType,
    Scope,
    check_client_entry,
    spec_of,
)
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2 as h
from walplane.rpc.v1 import log_pb2

T = MessageType
OWN, S = Dispatch.OWN_PCHANNEL, Dispatch.VCHANNEL
B_VC, B_C = Dispatch.VCHANNELS_AND_CCHANNEL, Dispatch.CCHANNEL
B_V, B_P = Dispatch.VCHANNELS, Dispatch.PCHANNELS


class Row(NamedTuple):
    """What a type implies, written down again; `locks` as in its column "resource keys"."""

    number: int
    name: str
    dispatch: Dispatch
    exclusive: Scope = Scope.NONE
    locks: str = ""


COLLECTION = "shared db + exclusive collection"
COLLECTION_SHARED = "shared db + shared collection"
SNAPSHOT = "exclusive snapshot"
BOTH = f"{COLLECTION} + {SNAPSHOT}"
DATABASE = "exclusive db"
PRIVILEGE = "exclusive privilege"
CLUSTER = "exclusive cluster"
VCHANNEL, PCHANNEL = Scope.VCHANNEL, Scope.PCHANNEL

ROWS = [
    Row(1, "TIME_TICK", OWN),
    Row(1001, "RECOVERY_BARRIER", OWN),
    Row(2, "INSERT", S),
    Row(3, "DELETE", S),
    Row(4, "FLUSH", S),
    Row(10, "CREATE_SEGMENT", S),
    Row(9, "MANUAL_FLUSH", S, VCHANNEL),
    Row(5, "CREATE_COLLECTION", B_VC, VCHANNEL, COLLECTION),
    Row(6, "DROP_COLLECTION", B_VC, VCHANNEL, COLLECTION),
    Row(13, "ALTER_COLLECTION", B_VC, VCHANNEL, COLLECTION),
    Row(7, "CREATE_PARTITION", B_VC, VCHANNEL, COLLECTION),
    Row(8, "DROP_PARTITION", B_VC, VCHANNEL, COLLECTION),
    Row(38, "TRUNCATE_COLLECTION", B_VC, VCHANNEL, COLLECTION),
    Row(34, "CREATE_INDEX", B_C, locks=COLLECTION),
    Row(35, "ALTER_INDEX", B_C, locks=COLLECTION),
    Row(36, "DROP_INDEX", B_C, locks=COLLECTION),
    Row(14, "ALTER_LOAD_CONFIG", B_C, locks=COLLECTION),
    Row(15, "DROP_LOAD_CONFIG", B_C, locks=COLLECTION),
    Row(47, "ALTER_RLS_METADATA", B_C, locks=COLLECTION),
    Row(48, "DROP_RLS_METADATA", B_C, locks=COLLECTION),
    Row(1002, "CREATE_SNAPSHOT", B_C, locks=BOTH),
    Row(1003, "RESTORE_SNAPSHOT", B_C, locks=BOTH),
    Row(1004, "DROP_SNAPSHOT", B_C, locks=SNAPSHOT),
    Row(1005, "DROP_SNAPSHOTS_BY_COLLECTION", B_C, locks=COLLECTION_SHARED),
    Row(11, "IMPORT", B_V, locks=COLLECTION),
    Row(1006, "BATCH_UPDATE_MANIFEST", B_C, locks=COLLECTION_SHARED),
    Row(1007, "REFRESH_EXTERNAL_COLLECTION", B_C),
    Row(16, "CREATE_DATABASE", B_C, locks=DATABASE),
    Row(17, "ALTER_DATABASE", B_C, locks=DATABASE),
    Row(18, "DROP_DATABASE", B_C, locks=DATABASE),
    Row(19, "ALTER_ALIAS", B_C, locks=DATABASE),
    Row(20, "DROP_ALIAS", B_C, locks=DATABASE),
    Row(22, "ALTER_USER", B_C, locks=PRIVILEGE),
    Row(23, "DROP_USER", B_C, locks=PRIVILEGE),
    Row(24, "ALTER_ROLE", B_C, locks=PRIVILEGE),
    Row(25, "DROP_ROLE", B_C, locks=PRIVILEGE),
    Row(26, "ALTER_USER_ROLE", B_C, locks=PRIVILEGE),
    Row(27, "DROP_USER_ROLE", B_C, locks=PRIVILEGE),
    Row(28, "ALTER_PRIVILEGE", B_C, locks=PRIVILEGE),
    Row(29, "DROP_PRIVILEGE", B_C, locks=PRIVILEGE),
    Row(30, "ALTER_PRIVILEGE_GROUP", B_C, locks=PRIVILEGE),
    Row(31, "DROP_PRIVILEGE_GROUP", B_C, locks=PRIVILEGE),
    Row(21, "RESTORE_RBAC", B_C, locks=PRIVILEGE),
    Row(32, "ALTER_RESOURCE_GROUP", B_C, locks=CLUSTER),
    Row(33, "DROP_RESOURCE_GROUP", B_C, locks=CLUSTER),
    Row(37, "FLUSH_ALL", B_P, PCHANNEL, CLUSTER),
    Row(800, "ALTER_REPLICATE_CONFIG", B_P, PCHANNEL, CLUSTER),
    Row(700, "ALTER_WAL", B_P, PCHANNEL, CLUSTER),
    Row(900, "BEGIN_TXN", S),
    Row(901, "COMMIT_TXN", S),
    Row(902, "ROLLBACK_TXN", S),
    Row(999, "TXN", Dispatch.NOWHERE),
]

SELF_CONTROLLED = {T.TIME_TICK, T.RECOVERY_BARRIER, T.FLUSH, T.CREATE_SEGMENT, T.TXN}
UNREPLICABLE = {
    T.CREATE_SNAPSHOT,
    T.RESTORE_SNAPSHOT,
    T.DROP_SNAPSHOT,
    T.BATCH_UPDATE_MANIFEST,
    T.REFRESH_EXTERNAL_COLLECTION,
    T.ALTER_RESOURCE_GROUP,
    T.DROP_RESOURCE_GROUP,
}
FLUSHING = {
    T.FLUSH,
    T.MANUAL_FLUSH,
    T.FLUSH_ALL,
    T.DROP_COLLECTION,
    T.DROP_PARTITION,
    T.TRUNCATE_COLLECTION,
}

LOCKS = {
    "shared db": ResourceKey(Domain.DB_NAME, "sales", shared=True),
    "exclusive db": ResourceKey(Domain.DB_NAME, "sales"),
    "shared collection": ResourceKey(Domain.COLLECTION_NAME, "sales/orders", shared=True),
    "exclusive collection": ResourceKey(Domain.COLLECTION_NAME, "sales/orders"),
    "exclusive snapshot": ResourceKey(Domain.SNAPSHOT_NAME, "monday"),
    "exclusive privilege": ResourceKey(Domain.PRIVILEGE, ""),
    "exclusive cluster": ResourceKey(Domain.CLUSTER, ""),
}


def named(header: Message) -> Message:
    """`header` with every name set that it has."""
    names = {"db_name": "sales", "collection_name": "orders", "snapshot_name": "monday"}
    for field, value in names.items():
        if field in header.DESCRIPTOR.fields_by_name:
            setattr(header, field, value)
    return header


def types_where(attribute: str) -> set[MessageType]:
    return {spec.type for spec in TABLE if getattr(spec, attribute)}


def test_the_rows_above_are_all_there_are() -> None:
    assert len(TABLE) == len(ROWS) == 52
    assert {spec.type for spec in TABLE} == set(MessageType)
    assert {(row.number, row.name) for row in ROWS} == {(t.value, t.name) for t in MessageType}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_as_the_semantics_say(row: Row) -> None:
    spec = spec_of(row.number)
    assert (spec.type.name, spec.dispatch, spec.exclusive) == (
        row.name,
        row.dispatch,
        row.exclusive,
    )
    expected = [LOCKS[lock] for lock in row.locks.split(" + ")] if row.locks else []
    if spec.is_broadcast and row.locks != CLUSTER:
        expected.insert(0, ResourceKey(Domain.CLUSTER, "", shared=True))
    assert spec.resource_keys(named(spec.header())) == expected


def test_which_types_the_wal_makes_itself() -> None:
    assert types_where("self_controlled") == SELF_CONTROLLED


def test_which_types_are_not_replicated() -> None:
    replicated = types_where("replicable")
    assert set(MessageType) - replicated == SELF_CONTROLLED | UNREPLICABLE


def test_which_broadcasts_wait_for_the_consumers() -> None:
    assert types_where("ack_sync_up") == {T.TRUNCATE_COLLECTION, T.FLUSH_ALL}


def test_which_types_any_replication_role_may_make() -> None:
    assert types_where("any_role") == {T.ALTER_RESOURCE_GROUP, T.DROP_RESOURCE_GROUP}


def test_which_types_seal_growing_segments() -> None:
    assert {spec.type for spec in TABLE if spec.flushes(spec.header())} == FLUSHING


def test_altering_a_collection_seals_segments_only_when_the_schema_changes() -> None:
    spec = spec_of(T.ALTER_COLLECTION)
    assert not spec.flushes(h.AlterCollectionHeader(properties={"ttl": "1"}))
    assert spec.flushes(h.AlterCollectionHeader(new_schema_version=2))


@pytest.mark.parametrize(
    ("db", "collection", "locked"),
    [
        ("", "orders2", ["sales"]),
        ("sales", "orders2", ["sales"]),
        ("archive", "", ["archive", "sales"]),
        ("archive", "orders", ["archive", "sales"]),
        ("zoo", "orders2", ["sales", "zoo"]),
    ],
)
def test_a_rename_locks_both_databases_in_order_and_each_once(
    db: str, collection: str, locked: list[str]
) -> None:
    header = h.AlterCollectionHeader(
        db_name="sales", collection_name="orders", new_db_name=db, new_collection_name=collection
    )
    assert spec_of(T.ALTER_COLLECTION).resource_keys(header) == [
        keys.SHARED_CLUSTER,
        *(ResourceKey(Domain.DB_NAME, name) for name in locked),
    ]


def test_keys_are_taken_by_domain_and_name_and_exclusively_where_both_are_asked_for() -> None:
    b, a = ResourceKey(Domain.DB_NAME, "b", shared=True), ResourceKey(Domain.DB_NAME, "a")
    snapshot = ResourceKey(Domain.SNAPSHOT_NAME, "0")
    shared_a = ResourceKey(Domain.DB_NAME, "a", shared=True)
    taken = in_locking_order([snapshot, b, shared_a, a, keys.SHARED_CLUSTER, b])
    assert taken == [keys.SHARED_CLUSTER, a, b, snapshot]


def test_collections_whose_names_hold_a_slash_lock_different_keys() -> None:
    spec = spec_of(T.DROP_COLLECTION)
    one = h.CollectionHeader(db_name="a", collection_name="b/c")
    other = h.CollectionHeader(db_name="a/b", collection_name="c")
    assert spec.resource_keys(one)[-1] != spec.resource_keys(other)[-1]


def test_domains_are_those_of_the_wire() -> None:
    wire = {
        name.removeprefix("RESOURCE_DOMAIN_"): number
        for name, number in log_pb2.ResourceDomain.items()
        if number
    }
    assert {domain.name: domain.value for domain in Domain} == wire


def test_headers_about_a_collection_name_it_in_the_same_fields() -> None:
    common = ["db_id", "db_name", "collection_id", "collection_name"]
    for spec in TABLE:
        fields = spec.header.DESCRIPTOR.fields_by_number
        if "collection_name" in spec.header.DESCRIPTOR.fields_by_name:
            assert [fields[number].name for number in range(1, 5)] == common, spec.type.name


@pytest.mark.parametrize("number", [0, 12, 1000, 1008, 2**32 - 1])
def test_a_number_that_no_type_has(number: int) -> None:
    with pytest.raises(WalError, match=f"no message type {number}") as caught:
        spec_of(number)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_header_that_is_none() -> None:
    with pytest.raises(WalError, match="header of INSERT is no InsertHeader") as caught:
        spec_of(T.INSERT).parse_header(b"\xff")
    assert caught.value.code is ErrorCode.UNRECOVERABLE


def envelope(type_: int = T.INSERT, vchannel: str = "c_0_1v0", count: int = 1) -> log_pb2.Envelope:
    return log_pb2.Envelope(type=type_, vchannel=vchannel, count=count)


def refusal(refused: log_pb2.Envelope) -> str:
    with pytest.raises(WalError) as caught:
        check_client_entry(refused)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    return caught.value.message


def test_what_a_client_may_append_gives_its_row() -> None:
    assert check_client_entry(envelope()).type is T.INSERT
    with_properties = envelope()
    with_properties.properties["farbe"] = "grün"
    check_client_entry(with_properties)


@pytest.mark.parametrize("type_", sorted(SELF_CONTROLLED))
def test_clients_do_not_append_what_the_wal_makes(type_: MessageType) -> None:
    assert "made by the WAL itself" in refusal(envelope(type_))


@pytest.mark.parametrize("count", [0, 65_537])
def test_an_entry_holds_some_messages_but_not_too_many(count: int) -> None:
    assert "put 1 to 65536 into it" in refusal(envelope(count=count))


def test_an_entry_names_its_vchannel() -> None:
    assert "names no VChannel: set the VChannel" in refusal(envelope(vchannel=""))


def test_only_what_is_for_whole_pchannels_names_no_vchannel() -> None:
    everywhere = envelope(T.FLUSH_ALL, vchannel="")
    everywhere.is_pchannel_level = True
    everywhere.broadcast.broadcast_id = 1
    check_client_entry(everywhere)
    everywhere.vchannel = "c_0_1v0"
    assert "name no VChannel" in refusal(everywhere)
    single = envelope()
    single.is_pchannel_level = True
    assert "is not for whole PChannels" in refusal(single)


def test_broadcasts_come_from_the_broadcaster_and_nothing_else_does() -> None:
    assert "ask the coordinator for it" in refusal(envelope(T.CREATE_COLLECTION))
    single = envelope()
    single.broadcast.broadcast_id = 1
    assert "append it to one VChannel" in refusal(single)


@pytest.mark.parametrize("key", ["_xk", "_ur", "_"])
def test_properties_with_an_underscore_are_reserved(key: str) -> None:
    reserved = envelope()
    reserved.properties[key] = "x"
    assert f"property {key!r} is reserved" in refusal(reserved)


def test_properties_and_trace_parent_have_limits() -> None:
    large = envelope()
    large.properties["a"] = "x" * 65_536
    assert "65537 characters" in refusal(large)
    long = envelope()
    long.trace_parent = "0" * 257
    assert "W3C traceparent" in refusal(long)


def test_no_client_says_which_segment_its_rows_are_in() -> None:
    names_one = envelope()
    names_one.segment_id = 7
    assert "the log's owner decides" in refusal(names_one)
