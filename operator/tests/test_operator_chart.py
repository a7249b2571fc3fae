"""The Helm chart: one source of CRDs, rights that suffice and no more, values that are checked."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from prometheus_client import Metric

from walplane.backends.registry import open_backend
from walplane.coord.coord import Coord
from walplane.coord.metrics import CoordCollector
from walplane.lease.metrics import SessionCollector
from walplane.node import StreamingNode
from walplane.node.metrics import NodeCollector
from walplane.rpc.errors import ErrorCode
from walplane.runtime import Runtime
from walplane.testkit.kube_objects import walcluster
from walplane.testkit.segments import MemoryStore, segment_deps
from walplane.wal.frames import FrameFilter
from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.manifests.access import RULES
from walplane_operator.manifests.desired import workloads

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "walplane"
HELM = shutil.which("helm")
needs_helm = pytest.mark.skipif(HELM is None, reason="needs helm")


def rules() -> list[Object]:
    """The operator's ClusterRole; its rules hold no template."""
    text = (CHART / "templates" / "clusterrole.yaml").read_text()
    part = text[text.index("rules:") : text.index("---")]
    found: list[Object] = yaml.safe_load(part)["rules"]
    return found


def rights(granted: list[Object]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in granted
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def render(*values: str) -> list[Object]:
    options = [option for value in values for option in ("--set", value)]
    command = ["helm", "template", "walplane", str(CHART), "-n", "walplane", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def test_the_chart_carries_the_crds_as_they_are() -> None:
    source, copy = ROOT / "crds", CHART / "crds"
    kept = sorted(source.glob("*.yaml"))
    assert [path.name for path in kept] == sorted(path.name for path in copy.iterdir())
    for path in kept:
        assert filecmp.cmp(path, copy / path.name, shallow=False), f"copy {path.name} again"


def test_the_operator_may_give_what_pods_get() -> None:
    """Nobody can grant rights that they lack."""
    for component, granted in RULES.items():
        assert rights(granted) <= rights(rules()), component


def test_the_operator_lists_its_verbs_one_by_one() -> None:
    assert "*" not in json.dumps(rules())
    secrets = [rule for rule in rules() if "secrets" in rule["resources"]]
    assert secrets == []


def test_the_operator_may_delete_no_custom_object() -> None:
    deletable = {(g, r) for g, r, verb in rights(rules()) if verb == "delete"}
    assert not {pair for pair in deletable if pair[0] == names.GROUP}


def test_values_and_their_schema_name_the_same_things() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}


@needs_helm
def test_lint_is_strict() -> None:
    subprocess.run(["helm", "lint", "--strict", str(CHART)], check=True, capture_output=True)


@needs_helm
@pytest.mark.parametrize(
    "value", ["replicas=0", "image.digest=abc", "unknown=1", "serviceAccount.create=false"]
)
def test_wrong_values_are_refused(value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        render(value)


class ClusterWithOperator(BaseHTTPRequestHandler):
    """As much of an API server as helm asks when it looks up Deployments."""

    place = ("", "", "")

    def do_GET(self) -> None:
        namespace, name, release = self.place
        labels = {"app.kubernetes.io/name": "walplane-operator"}
        metadata: Object = {"namespace": namespace, "name": name}
        metadata["labels"] = labels | {"app.kubernetes.io/instance": release}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}
        resource = {"name": "deployments", "kind": "Deployment", "namespaced": True}
        answers: Object = {
            "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
            "/apis/apps/v1": {
                "kind": "APIResourceList",
                "groupVersion": "apps/v1",
                "resources": [resource | {"verbs": ["list"]}],
            },
            "/apis/apps/v1/deployments": {
                "apiVersion": "apps/v1",
                "kind": "DeploymentList",
                "metadata": {},
                "items": [deployment],
            },
        }
        found = answers.get(self.path.partition("?")[0])
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found or {"kind": "Status", "code": 404}).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@needs_helm
@pytest.mark.parametrize(
    ("place", "refused"),
    [
        (("walplane", "walplane", "walplane"), False),
        (("staging", "walplane", "walplane"), True),
        (("walplane", "other-walplane", "other"), True),
    ],
)
def test_a_second_operator_is_refused(place: tuple[str, str, str], refused: bool) -> None:
    handler = type("Handler", (ClusterWithOperator,), {"place": place})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            api = ("--kube-apiserver", f"http://127.0.0.1:{server.server_port}")
            command = ["helm", "template", "walplane", str(CHART), "-n", "walplane"]
            command += [*api, "--dry-run=server", "--kubeconfig", "/dev/null"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        finally:
            server.shutdown()
    assert (done.returncode != 0) == refused, done.stderr
    if refused:
        assert f"Deployment {place[1]} in namespace {place[0]} is a walplane op" in done.stderr


@needs_helm
def test_pods_fit_the_restricted_standard_and_know_their_image() -> None:
    digest = f"sha256:{'a' * 64}"
    deployment = next(m for m in render(f"image.digest={digest}") if m["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == f"walplane@{digest}"
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["WALPLANE_OPERATOR_IMAGE"] == container["image"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@needs_helm
def test_one_replica_has_no_disruption_budget() -> None:
    kinds = {manifest["kind"] for manifest in render("replicas=1")}
    assert "PodDisruptionBudget" not in kinds
    assert "PodDisruptionBudget" in {manifest["kind"] for manifest in render()}


def alerts() -> list[Object]:
    found = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    rules: list[Object] = found["groups"][0]["rules"]
    return rules


async def shown() -> dict[str, set[str]]:
    """Every sample that pods of either kind can show, with the names of its labels."""
    backend = await open_backend("memory:")
    async with Coord.open(backend, "p", Runtime.system(), pchannel_count=1) as coord:
        node = StreamingNode(
            *("n", backend, coord.oracle, coord.channels, Runtime.system()),
            segments=segment_deps(MemoryStore()),
        )
        log = node.meters.of("p_0")
        log.refused[ErrorCode.INNER] += 1
        log.opens["served"] += 1
        log.objects["stored"] += 1
        log.frames_dropped(FrameFilter("p_0"))
        session = Mock(age_s=1.0)
        collectors = (
            *(NodeCollector(node, Runtime.system()), CoordCollector(lambda: coord)),
            SessionCollector(session),
        )
        families = [family for each in collectors for family in each.collect()]
        families += operator_families()
        await node.close()
    await backend.close()
    return samples(families)


def operator_families() -> list[Metric]:
    """The operator's metrics, those by word with one word each."""
    metrics = Metrics()
    words = (metrics.reconciles, metrics.grants, metrics.releases)
    for by_word in (*words, metrics.watch_restarts, metrics.status_writes):
        by_word.labels("word").inc()
    return list(metrics.registry.collect())


def samples(families: list[Metric]) -> dict[str, set[str]]:
    """Names of samples, with the names of their labels."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        f"{each.name}{end}": {name for sample in each.samples for name in sample.labels}
        for each in families
        for end in endings.get(each.type, ("",))
    }


async def test_alerts_and_dashboard_ask_for_what_is_shown() -> None:
    there = await shown()
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [rule["expr"] for rule in alerts()]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for text in asked for name in re.findall(r"walplane_(?!cluster)\w+", text)}
    assert used <= there.keys()
    assert len(used) > 20
    chosen = re.findall(r"(walplane_\w+)\{([^}]+)\}", " ".join(asked))
    assert len(chosen) > 2
    scraped = {"namespace", "walplane_cluster"}
    for name, selectors in chosen:
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert labels <= there[name] | scraped, name


def test_every_metric_of_the_operator_is_in_its_page() -> None:
    text = (ROOT / "docs" / "components" / "operator.md").read_text()
    table = text.partition("| name, after `walplane_operator_` |")[2].partition("\n\n")[0]
    named = [row.split("|")[1] for row in table.splitlines() if "|" in row]
    told = {word for cell in named for word in re.findall(r"`([^`]+)`", cell)}
    wanted = set()
    for each in operator_families():
        labels = {name for sample in each.samples for name in sample.labels} - {"le"}
        total = "_total" if each.type == "counter" else ""
        shown = f"{{{','.join(sorted(labels))}}}" if labels else ""
        wanted.add(f"{each.name.removeprefix('walplane_operator_')}{total}{shown}")
    assert told == wanted


def test_who_leads_is_missed_also_when_nobody_is_there() -> None:
    """Nothing can be counted, or be 0, where nothing is scraped."""
    said = {rule["alert"]: " ".join(rule["expr"].split()) for rule in alerts()}
    by = "(namespace, walplane_cluster)"
    assert said["WalplaneNoCoordinator"].partition(" or ")[2] == (
        f"count by {by} (walplane_tick_reserve) unless on {by} walplane_coord_leading == 1"
    )
    assert said["WalplaneNoOperator"].endswith(" or absent(walplane_operator_leading)")


def test_a_channel_that_fails_over_and_over_is_missed() -> None:
    """Its state changes with each attempt: what lasts is that it is not served."""
    (rule,) = (each for each in alerts() if each["alert"] == "WalplaneChannelNotServed")
    assert rule["expr"] == 'sum without (state) (walplane_coord_pchannels{state!="ASSIGNED"}) > 0'
    assert "$labels.state" not in rule["annotations"]["summary"]


def test_every_alert_has_its_runbook() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    assert {rule["labels"]["severity"] for rule in alerts()} == {"critical", "warning"}


@needs_helm
def test_monitoring_is_made_when_it_is_asked_for() -> None:
    assert not {"PodMonitor", "PrometheusRule"} & {each["kind"] for each in render()}
    options = ("podMonitor=true", "rules=true", "dashboard=true", "labels.release=prom")
    manifests = render(*(f"metrics.{each}" for each in options))
    made = {each["kind"]: each for each in manifests if "-operator" not in each["metadata"]["name"]}
    assert made["PrometheusRule"]["spec"]["groups"][0]["rules"] == alerts()
    assert json.loads(made["ConfigMap"]["data"]["walplane.json"])["title"] == "walplane"
    for kind in ("PrometheusRule", "PodMonitor", "ConfigMap"):
        assert made[kind]["metadata"]["labels"]["release"] == "prom"
    assert made["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    monitor = made["PodMonitor"]["spec"]
    (port,) = monitor["podMetricsEndpoints"]
    (label,) = port["relabelings"]
    assert label["targetLabel"] == "walplane_cluster", "alerts add up by it"
    source = "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", names.LABEL_CLUSTER)
    assert label["sourceLabels"] == [source]
    for template in pods_of(workloads(WALCluster(walcluster()), "walplane:1", 1)):
        labels = template["metadata"]["labels"].items()
        assert monitor["selector"]["matchLabels"].items() <= labels
        ports = template["spec"]["containers"][0]["ports"]
        numbers = {each["name"]: each["containerPort"] for each in ports}
        assert numbers[port["port"]] == names.METRICS_PORT
    monitor_the_operator(manifests)


def monitor_the_operator(manifests: list[Object]) -> None:
    """The PodMonitor of the operator's own pods finds them, in their namespace."""
    (found,) = [m for m in manifests if m["metadata"]["name"] == "walplane-operator"]
    assert (found["kind"], found["metadata"]["labels"]["release"]) == ("PodMonitor", "prom")
    (deployment,) = [m for m in manifests if m["kind"] == "Deployment"]
    assert found["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    assert "namespaceSelector" not in found["spec"]
    template = deployment["spec"]["template"]
    wanted = found["spec"]["selector"]["matchLabels"].items()
    assert wanted <= template["metadata"]["labels"].items()
    (port,) = found["spec"]["podMetricsEndpoints"]
    assert port["port"] in [p["name"] for p in template["spec"]["containers"][0]["ports"]]


def pods_of(manifests: list[Object]) -> list[Object]:
    kinds = ("StatefulSet", "Deployment")
    return [m["spec"]["template"] for m in manifests if m["kind"] in kinds]
