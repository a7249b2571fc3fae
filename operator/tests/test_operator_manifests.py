"""Manifests: what pods are told and allowed, and that nobody's label breaks a selector."""

from __future__ import annotations

from typing import Any

import pytest

from walplane.backends.pulsar.config import PulsarConfig
from walplane.cli.pods import advertised
from walplane.testkit.kube_objects import UID, Object, walcluster
from walplane_operator.api import names
from walplane_operator.api.spec import WALCluster
from walplane_operator.manifests.common import ANSWERS
from walplane_operator.manifests.config import backend_url
from walplane_operator.manifests.desired import pchannel, pchannel_lease, workloads


def build(raw: Object | None = None) -> list[Object]:
    return workloads(WALCluster(raw or walcluster()), "walplane:1", 3)


def one(manifests: list[Object], kind: str, name: str) -> Object:
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def pods_of(manifests: list[Object]) -> list[Object]:
    kinds = ("StatefulSet", "Deployment")
    return [m["spec"]["template"] for m in manifests if m["kind"] in kinds]


def embedded() -> Object:
    return walcluster(nodes=1, backend={"embedded": {"storage": {"size": "1Gi"}}})


def test_everything_is_there_and_owned() -> None:
    manifests = build()
    assert {(m["kind"], m["metadata"]["name"]) for m in manifests} == {
        ("ConfigMap", "demo-config"),
        *(
            (kind, f"demo-{component}")
            for component in ("node", "coord")
            for kind in (
                "ServiceAccount",
                "Role",
                "RoleBinding",
                "Service",
                "PodDisruptionBudget",
                "StatefulSet" if component == "node" else "Deployment",
            )
        ),
    }
    for manifest in manifests:
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("WALCluster", UID, True)
        assert manifest["metadata"]["namespace"] == "default"


def test_the_same_spec_gives_the_same_manifests() -> None:
    assert build() == build()


@pytest.mark.parametrize("raw", [walcluster(), embedded()], ids=["pulsar", "embedded"])
def test_pods_fit_the_restricted_standard(raw: Object) -> None:
    for template in pods_of(build(raw)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"name": "tmp", "emptyDir": {}} in spec["volumes"]


@pytest.mark.parametrize("raw", [walcluster(), embedded()], ids=["pulsar", "embedded"])
def test_selectors_match_pods_and_services(raw: Object) -> None:
    raw["spec"]["podTemplate"] = {"labels": {names.LABEL_CLUSTER: "hijack", "team": "logs"}}
    manifests = build(raw)
    for manifest in manifests:
        spec = manifest.get("spec") or {}
        selector = spec.get("selector") or {}
        selector = selector.get("matchLabels", selector)
        if selector:
            labels = [template["metadata"]["labels"] for template in pods_of(manifests)]
            assert any(selector.items() <= each.items() for each in labels), manifest["kind"]
    assert all(t["metadata"]["labels"]["team"] == "logs" for t in pods_of(manifests))


def test_pods_write_leases_and_nothing_else() -> None:
    manifests = build()
    rules = {
        name: one(manifests, "Role", f"demo-{name}")["rules"] for name in (names.NODE, names.COORD)
    }
    for component, granted in rules.items():
        for rule in granted:
            assert "*" not in str(rule)
            writes = set(rule["verbs"]) - {"get", "list", "watch"}
            assert not writes or rule["resources"] == ["leases"], component
    assert [rule["resources"] for rule in rules[names.NODE]] == [["leases"]]
    (template,) = pods_of(build(embedded()))
    assert template["spec"]["automountServiceAccountToken"] is False


def test_nodes_are_replaced_by_the_operator_alone() -> None:
    spec = one(build(), "StatefulSet", "demo-node")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 120
    budget = one(build(), "PodDisruptionBudget", "demo-node")["spec"]
    assert budget["maxUnavailable"] == 1


@pytest.mark.parametrize("lease", [3, 10, 300])
def test_liveness_tolerates_four_leases(lease: int) -> None:
    for template in pods_of(build(walcluster(lease={"durationSeconds": lease}))):
        probe = template["spec"]["containers"][0]["livenessProbe"]
        assert (probe["failureThreshold"] - 1) * probe["periodSeconds"] >= 4 * lease


def test_a_start_that_replays_a_long_log_is_alive_and_not_ready() -> None:
    for template in pods_of([*build(), *build(embedded())]):
        container = template["spec"]["containers"][0]
        kinds = ("startup", "liveness", "readiness")
        asked = {kind: container[f"{kind}Probe"]["grpc"]["service"] for kind in kinds}
        assert asked == {"startup": ANSWERS, "liveness": ANSWERS, "readiness": ""}


def environment(template: Object) -> dict[str, Any]:
    container = template["spec"]["containers"][0]
    return {entry["name"]: entry for entry in container["env"]}


def test_pods_know_who_they_are() -> None:
    manifests = build()
    config = one(manifests, "ConfigMap", "demo-config")["data"]
    for template in pods_of(manifests):
        env = environment(template)
        assert env["WALPLANE_POD_UID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"
        assert {"WALPLANE_POD_NAME", "WALPLANE_NAMESPACE", "WALPLANE_POD_IP"} <= env.keys()
        (source,) = template["spec"]["containers"][0]["envFrom"]
        assert source == {"configMapRef": {"name": "demo-config"}}
        for argument in template["spec"]["containers"][0]["args"]:
            variable = argument.partition("$(")[2].partition(")")[0]
            assert not variable or variable in config or variable in env
    assert config["WALPLANE_CLUSTER_UID"] == UID
    assert config["WALPLANE_COORD"] == "demo-coord:7650"


def test_pods_say_themselves_where_they_are_reached() -> None:
    """An IPv6 address wants brackets, which no manifest can put around `$(WALPLANE_POD_IP)`."""
    for template in pods_of(build()):
        arguments = template["spec"]["containers"][0]["args"]
        assert not [each for each in arguments if each.startswith("--advertise")]
        (listen,) = [each for each in arguments if each.startswith("--listen=")]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("WALPLANE_POD_IP", "fd00::7")
            address = advertised(listen.partition("=")[2], None)
        assert address.startswith("[fd00::7]:")


def test_the_backend_url_is_one_the_data_plane_takes() -> None:
    cluster = WALCluster(walcluster())
    parsed = PulsarConfig.parse(backend_url(cluster))
    assert parsed.service_url == "pulsar://pulsar:6650"
    assert (parsed.admin_url, parsed.namespace) == ("http://pulsar:8080", "public/walplane")


def changed(change: dict[str, Any]) -> tuple[bool, bool]:
    """Whether (nodes, coordinator) start anew after a change of the spec."""
    raw = walcluster()
    raw["spec"] |= change
    before, after = build(), build(raw)
    return tuple(
        one(before, kind, name)["spec"]["template"] != one(after, kind, name)["spec"]["template"]
        for kind, name in (("StatefulSet", "demo-node"), ("Deployment", "demo-coord"))
    )


@pytest.mark.parametrize(
    ("change", "restarts"),
    [
        ({"lease": {"durationSeconds": 20}}, (True, True)),
        ({"pchannels": {"count": 9}}, (False, True)),
        ({"nodes": {"replicas": 5}}, (False, False)),
        ({"coord": {"replicas": 2}}, (False, False)),
        ({"deletionPolicy": "Delete"}, (False, False)),
        ({"nodes": {"replicas": 3, "resources": {"limits": {"cpu": "1"}}}}, (True, False)),
        ({"podTemplate": {"priorityClass": "high"}}, (True, True)),
        ({"segmentStore": {"url": "s3://bucket/demo"}}, (True, False)),
    ],
)
def test_a_change_restarts_what_it_must_and_nothing_else(
    change: dict[str, Any], restarts: tuple[bool, bool]
) -> None:
    assert changed(change) == restarts


def test_adoption_is_told_to_the_coordinator_alone() -> None:
    raw = walcluster()
    raw["metadata"]["annotations"] = {names.ANNOTATION_ADOPT: "old-uid"}
    node, coord = pods_of(build(raw))
    assert "WALPLANE_ADOPT" not in environment(node), "nodes learn it with their grants"
    assert environment(coord)["WALPLANE_ADOPT"]["value"] == "old-uid"


def test_overlays_reach_every_pod() -> None:
    overlay = {
        "annotations": {"a": "b"},
        "affinity": {"podAffinity": {}},
        "tolerations": [{"operator": "Exists"}],
        "topologySpread": [
            {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClass": "high",
        "securityContext": {"runAsUser": 7},
        "imagePullSecrets": [{"name": "pull"}],
    }
    for template in pods_of(build(walcluster(podTemplate=overlay))):
        spec = template["spec"]
        assert template["metadata"]["annotations"]["a"] == "b"
        assert spec["affinity"] == overlay["affinity"]
        assert spec["tolerations"] == overlay["tolerations"]
        assert spec["priorityClassName"] == "high"
        assert spec["imagePullSecrets"] == [{"name": "pull"}]
        assert spec["securityContext"]["runAsUser"] == 7
        assert spec["securityContext"]["runAsNonRoot"] is True
        (spread,) = spec["topologySpreadConstraints"]
        assert (spread["topologyKey"], spread["maxSkew"]) == ("zone", 2)
        labels = template["metadata"]["labels"]
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("backend", [{}, embedded()["spec"]["backend"]])
def test_nodes_learn_where_segments_go_and_nobody_else(backend: Object) -> None:
    store = {"url": "s3://bucket/demo", "secretName": "keys", "retentionSeconds": 60}
    raw = walcluster(nodes=1, segmentStore=store)
    raw["spec"]["backend"] = backend or raw["spec"]["backend"]
    node, *others = pods_of(build(raw))
    env = environment(node)
    assert env["WALPLANE_SEGMENT_STORE"]["value"] == "s3://bucket/demo"
    assert env["WALPLANE_RETENTION_SECONDS"]["value"] == "60"
    container = node["spec"]["containers"][0]
    assert container["envFrom"][0] == {"secretRef": {"name": "keys"}}
    for other in others:
        assert "WALPLANE_SEGMENT_STORE" not in environment(other)
        assert len(other["spec"]["containers"][0]["envFrom"]) == 1


def test_an_embedded_cluster_is_one_pod_with_a_volume() -> None:
    manifests = build(embedded())
    spec = one(manifests, "StatefulSet", "demo-node")["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert "--data=/data" in spec["template"]["spec"]["containers"][0]["args"]
    service = one(manifests, "Service", "demo-coord")
    assert service["spec"]["ports"][0]["port"] == 7650
    assert not [m for m in manifests if m["kind"] in ("Role", "Deployment")]


def test_a_pchannel_leaves_the_users_fields_alone() -> None:
    manifest = pchannel(WALCluster(walcluster()), 3)
    assert manifest["metadata"]["name"] == "demo-3"
    assert manifest["spec"].keys() == {"clusterRef", "index", "channel"}


def test_a_pchannel_lease_belongs_to_the_cluster() -> None:
    """Not to the PChannel: deleting that loses no term."""
    lease = pchannel_lease(WALCluster(walcluster()), 3)
    assert lease["metadata"]["name"] == "demo-pch-3"
    assert lease["metadata"]["ownerReferences"][0]["kind"] == "WALCluster"
    assert lease["metadata"]["labels"][names.LABEL_LEASE] == names.LEASE_PCHANNEL


def test_pods_are_scraped_where_they_serve_metrics() -> None:
    for template in pods_of(build()) + pods_of(build(embedded())):
        annotations = template["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        port = int(annotations["prometheus.io/port"])
        container = template["spec"]["containers"][0]
        assert {"name": "metrics", "containerPort": port, "protocol": "TCP"} in container["ports"]
        assert environment(template)["WALPLANE_METRICS"]["value"] == f"0.0.0.0:{port}"


def test_a_user_may_keep_prometheus_away() -> None:
    raw = walcluster(podTemplate={"annotations": {"prometheus.io/scrape": "false"}})
    for template in pods_of(build(raw)):
        assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "false"
