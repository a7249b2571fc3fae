"""Names, spec defaults, Leases and conditions, as CRDs and docs/kubernetes.md say."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from walplane.testkit.kube_objects import ClusterObjects, walcluster
from walplane.wal.config import RETENTION_S
from walplane_operator.api import names
from walplane_operator.api.conditions import Condition, merge
from walplane_operator.api.leases import PChannelLease, Session
from walplane_operator.api.names import Object
from walplane_operator.api.spec import SegmentStoreSpec, WALCluster, WALClusterSpec
from walplane_operator.api.times import micro_time, parse_time
from walplane_operator.manifests.config import DATA_DIRECTORY

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def crd(name: str) -> Object:
    loaded: Object = yaml.safe_load((ROOT / "crds" / name).read_text())
    return loaded


def schema(name: str) -> Object:
    version = crd(name)["spec"]["versions"][0]
    properties: Object = version["schema"]["openAPIV3Schema"]["properties"]
    return properties


def defaults(part: Object) -> Object:
    """The defaults in a schema, as the API server would fill them into an empty object."""
    found = {
        key: value.get("default", defaults(value) or None)
        for key, value in part.get("properties", {}).items()
    }
    return {key: value for key, value in found.items() if value not in (None, {})}


def strings_without_bound(part: object, path: str) -> list[str]:
    if not isinstance(part, dict):
        return []
    bounded = part.keys() & {"maxLength", "enum"} or path in ("/apiVersion", "/kind")
    found = [path] if part.get("type") == "string" and not bounded else []
    for key, value in part.get("properties", {}).items():
        found += strings_without_bound(value, f"{path}/{key}")
    for key in ("items", "additionalProperties"):
        found += strings_without_bound(part.get(key), f"{path}/{key}")
    return found


@pytest.mark.parametrize("name", ["walclusters.yaml", "pchannels.yaml"])
def test_every_string_of_the_crds_is_bounded(name: str) -> None:
    version = crd(name)["spec"]["versions"][0]
    assert strings_without_bound(version["schema"]["openAPIV3Schema"], "") == []


def test_defaults_are_those_of_the_crd() -> None:
    wanted = defaults(schema("walclusters.yaml")["spec"])
    wanted["pchannels"] = {"count": 16}
    wanted["nodes"] = {"replicas": 1}
    wanted["coord"] = {"replicas": 1}
    wanted["lease"] = {"durationSeconds": 10}
    pulsar = {"serviceUrl": "pulsar://p:6650", "adminUrl": "http://p:8080"}
    spec = WALClusterSpec.model_validate({"backend": {"pulsar": pulsar}})
    ours = spec.model_dump(by_alias=True, exclude_none=True)
    for key in ("paused", "deletionPolicy", "pchannels", "coord", "lease"):
        assert ours[key] == wanted[key], key
    assert ours["nodes"]["replicas"] == wanted["nodes"]["replicas"]
    backend = wanted["backend"]
    assert spec.backend.pulsar is not None
    assert spec.backend.pulsar.tenant == backend["pulsar"]["tenant"]
    assert spec.backend.pulsar.namespace == backend["pulsar"]["namespace"]
    embedded = WALClusterSpec.model_validate({"backend": {"embedded": {}}}).backend.embedded
    assert embedded is not None
    assert embedded.storage.size == backend["embedded"]["storage"]["size"]


def test_every_field_of_the_spec_is_read() -> None:
    """A field enters the schema only when it works."""
    in_crd = set(schema("walclusters.yaml")["spec"]["properties"])
    read = {field.alias for field in WALClusterSpec.model_fields.values()}
    assert in_crd == read


def test_the_reference_names_every_label_annotation_and_field() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    spoken = [
        *(value for key, value in vars(names).items() if key.startswith(("LABEL_L", "LABEL_C"))),
        *(v for k, v in vars(names).items() if k.startswith("ANNOTATION_") and "CONFIG" not in k),
        names.FINALIZER,
        *schema("walclusters.yaml")["spec"]["properties"],
        *schema("walclusters.yaml")["spec"]["properties"]["podTemplate"]["properties"],
    ]
    assert [word for word in spoken if word not in text] == []


def test_the_reference_explains_every_reason() -> None:
    """Those of two words and more, which say what they are in the code, too."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    plans = (ROOT / "operator" / "src" / "walplane_operator" / "plan").glob("*.py")
    strings = {
        node.value
        for plan in plans
        for node in ast.walk(ast.parse(plan.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    reasons = {text for text in strings if re.fullmatch(r"([A-Z][a-z]+){2,}", text)}
    assert len(reasons) > 20
    kubernetes_own = {"PodScheduled"}
    assert sorted(r for r in reasons - kubernetes_own if f"`{r}`" not in text) == []


@pytest.mark.parametrize(
    ("namespace", "name", "prefix"),
    [
        ("default", "demo", "default-demo"),
        ("n" * 19, "c" * 20, "n" * 19 + "-" + "c" * 20),
    ],
)
def test_prefix_is_namespace_and_name(namespace: str, name: str, prefix: str) -> None:
    assert names.default_prefix(namespace, name) == prefix


def test_long_prefixes_are_cut_and_stay_different() -> None:
    first = names.default_prefix("a" * 63, "cluster-one")
    second = names.default_prefix("a" * 63, "cluster-two")
    assert first != second
    assert max(len(first), len(second)) <= names.MAX_PREFIX
    prefix = schema("walclusters.yaml")["spec"]["properties"]["pchannels"]["properties"]["prefix"]
    assert re.fullmatch(prefix["pattern"], first)


def test_a_segment_store_is_a_url_that_stays() -> None:
    fields = schema("walclusters.yaml")["spec"]["properties"]["segmentStore"]["properties"]
    assert fields["retentionSeconds"]["default"] == RETENTION_S
    assert SegmentStoreSpec(url="s3://b").retention_seconds == RETENTION_S
    url = fields["url"]
    shape, stays = (each["rule"] for each in url["x-kubernetes-validations"])
    assert stays == "self == oldSelf"
    patterns = re.findall(r"self\.matches\('([^']+)'\)", shape)
    assert " || ".join(f"self.matches('{each}')" for each in patterns) == shape
    taken = ("s3://bucket", "s3://bucket/a/b", "gs://b/p", "az://c/p", "file:///data/segments")
    refused = (
        "",
        "bucket/prefix",
        "/data",
        "file://data",
        "s3://",
        "s3:///p",
        "s3://b/a b",
        "ftp://b",
    )
    for text in (*taken, *refused):
        assert any(re.search(each, text) for each in patterns) == (text in taken), text


def rules_of_the_spec() -> list[str]:
    """The rules at `spec` about `segmentStore`."""
    rules = schema("walclusters.yaml")["spec"]["x-kubernetes-validations"]
    return [each["rule"] for each in rules if "segmentStore" in each["rule"]]


def test_a_segment_store_in_files_is_on_the_volume_of_an_embedded_cluster() -> None:
    """A pod's root is read-only and its /tmp goes with it: rows there would be lost."""
    allowed, _ = rules_of_the_spec()
    (pattern,) = re.findall(r'url\.matches\("([^"]+)"\)', allowed)
    assert allowed.split(" || ") == [
        "!has(self.segmentStore)",
        '!self.segmentStore.url.startsWith("file:")',
        f'(has(self.backend.embedded) && self.segmentStore.url.matches("{pattern}"))',
    ]
    taken = ("/segments", "/a/b-c_d.e", "/segments/")
    refused = ("", "/", "base/s", "/../tmp", "/s/..", "/.hidden", "/s//t", "/%2e%2e/tmp")
    for text in (*taken, *refused):
        url = f"file://{DATA_DIRECTORY}{text}"
        assert bool(re.search(pattern, url)) == (text in taken), url
    assert not re.search(pattern, "file:///tmp/segments")


def test_a_segment_store_does_not_go() -> None:
    """Rules at a field are not asked when what is above it goes, and comes back as another."""
    _, stays = rules_of_the_spec()
    assert stays == "!has(oldSelf.segmentStore) || has(self.segmentStore)"


def test_users_prefix_wins() -> None:
    raw = walcluster("a", "b")
    raw["spec"]["pchannels"]["prefix"] = "mine"
    cluster = WALCluster(raw)
    assert (cluster.prefix, cluster.channel(3)) == ("mine", "mine_3")


def test_micro_times_have_six_digits() -> None:
    assert micro_time(NOW.replace(microsecond=0)) == "2026-01-02T03:04:05.000000Z"
    assert parse_time(micro_time(NOW)) == NOW
    assert parse_time("yesterday") is None


def test_a_session_lease_is_read() -> None:
    objects = ClusterObjects()
    identity = objects.node(2, channels={0: {"term": 7, "termFloor": 9, "lastError": "no disk"}})
    session = Session.read(objects.leases["demo-node-2"])
    assert (session.identity, session.pod, session.component) == (identity, "demo-node-2", "node")
    report = session.report.channels["default-demo_0"]
    assert (report.term, report.term_floor, report.last_error) == (7, 9, "no disk")
    assert session.renewed == NOW


@pytest.mark.parametrize("text", ["", "{", '{"channels": 3}', "[]"])
def test_a_malformed_report_counts_as_none(text: str) -> None:
    objects = ClusterObjects()
    objects.node(0)
    lease = objects.leases["demo-node-0"]
    lease["metadata"]["annotations"][names.ANNOTATION_REPORT] = text
    assert Session.read(lease).report.channels == {}


def test_a_grant_takes_everything_of_the_grant_before_away() -> None:
    lease = PChannelLease.read(ClusterObjects().grant(1, "old_u_i", 4, release=4))
    granted = lease.granted_to("new_u_i", 9, "", NOW)
    after = PChannelLease.read(granted)
    assert (after.holder, after.term, after.ready_term, after.release) == ("new_u_i", 9, 0, 0)
    assert not after.ready
    assert granted["metadata"]["resourceVersion"] == lease.raw["metadata"]["resourceVersion"]
    assert lease.raw["spec"]["holderIdentity"] == "old_u_i", "what was read is left as it was"


@pytest.mark.parametrize("term", [3, 4])
def test_a_term_never_goes_back(term: int) -> None:
    lease = PChannelLease.read(ClusterObjects().grant(1, "", 4))
    with pytest.raises(ValueError, match="not above 4"):
        lease.granted_to("new_u_i", term, "", NOW)


def test_adoption_goes_with_the_grant_and_ends_with_the_next() -> None:
    lease = PChannelLease.read(ClusterObjects().grant(1, "", 4))
    granted = lease.granted_to("new_u_i", 5, "old-uid", NOW)
    assert granted["metadata"]["annotations"][names.ANNOTATION_ADOPT] == "old-uid"
    again = PChannelLease.read(granted).granted_to("new_u_i", 6, "", NOW)
    assert names.ANNOTATION_ADOPT not in again["metadata"]["annotations"]


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = merge([], [Condition("Ready", "False", "Starting")], 1, NOW)
    later = NOW.replace(hour=9)
    same = merge(first, [Condition("Ready", "False", "Waiting", "for pods")], 2, later)
    assert same[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("Waiting", 2)
    other = merge(same, [Condition("Ready", "True", "Serving")], 2, later)
    assert other[0]["lastTransitionTime"] == "2026-01-02T09:04:05Z"


def test_a_session_is_one_process() -> None:
    assert names.pod_of("demo-node-0_uid_abc") == "demo-node-0"
    assert names.pod_of("") == ""
