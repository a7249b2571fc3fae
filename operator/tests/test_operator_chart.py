"""The Helm chart: one source of CRDs, rights that suffice and no more, values that are checked."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.manifests.access import RULES

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
    assert sorted(p.name for p in source.iterdir()) == sorted(p.name for p in copy.iterdir())
    for path in source.iterdir():
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
