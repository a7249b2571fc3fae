"""Rules about the repository itself that no linter checks."""

from __future__ import annotations

import ast
import filecmp
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from devservices import protos

ROOT = Path(__file__).resolve().parents[3]
GENERATED = "walplane/rpc/v1"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listed.stdout.split() if (path := ROOT / name).exists()]


def python_files() -> list[Path]:
    """Every Python file written by hand."""
    return [path for path in tracked("*.py") if GENERATED not in path.as_posix()]


def test_operator_is_no_package() -> None:
    """With operator/__init__.py the standard library's `operator` would be shadowed."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "importlib" not in options["addopts"]


def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    protos.generate(tmp_path)
    fresh = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*"))
    kept = sorted(path.relative_to(protos.OUT) for path in protos.OUT.rglob("*_pb2*.py*"))
    kept = [path for path in kept if "__pycache__" not in path.parts]
    assert fresh == kept
    stale = [str(p) for p in fresh if not filecmp.cmp(tmp_path / p, protos.OUT / p, shallow=False)]
    assert stale == [], "run `make proto`"


def test_every_package_and_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if "tests" not in path.parts and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_files_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in python_files()
        if (count := len(path.read_text().splitlines())) > MAX_FILE_LINES
    ]
    assert long == []


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_test_files_have_unique_names_and_no_packages() -> None:
    tests = [path for path in tracked("*.py") if "tests" in path.parts]
    names = [path.name for path in tests]
    assert sorted(set(names)) == sorted(names)
    assert "__init__.py" not in names


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"])
def test_papers_are_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_every_rule_that_is_named_is_on_the_page_of_rules() -> None:
    """`rules §n`, the labels `§n` of violations, and I1 to I16."""
    page = (ROOT / "docs" / "rules.md").read_text()
    rules = set(re.findall(r"^## (\d+) ", page, re.M))
    invariants = set(re.findall(r"^\| (I\d+) \|", page, re.M))
    lost = []
    for path in tracked("*.py", "*.md", "*.proto", "*.toml", "*.yaml"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            here = set(re.findall(r"§(\d+)", line)) <= rules
            here &= set(re.findall(r"\b(I\d{1,2})\b", line)) <= invariants
            if not here or re.search(r"(semantics|architecture) §", line, re.I):
                lost.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert rules and invariants
    assert lost == []


@pytest.mark.parametrize(
    ("package", "page"),
    [("cli", "command"), ("embedded", "embedded"), ("lease", "lease"), ("testkit", "testkit")],
)
def test_a_page_that_lists_modules_lists_all(package: str, page: str) -> None:
    """That of testkit has a table of `testkit/sim` as well, below its own."""
    text = (ROOT / "docs" / "components" / f"{page}.md").read_text()
    own, _, below = text.partition("\n## The simulation\n")
    source = ROOT / "dataplane" / "src" / "walplane" / package
    lacks = [
        str(module.relative_to(source))
        for listed, folder in ((own, source), (below, source / "sim"))
        for module in folder.glob("*.py")
        if module.name != "__init__.py" and not re.search(rf"[`/]{module.name}`", listed)
    ]
    assert lacks == [], f"docs/components/{page}.md says nothing of them"


def test_every_decision_says_its_status_and_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    expected = []
    for path in sorted(folder.glob("0*.md")):
        title, _, status, *_ = path.read_text().splitlines()
        number, _, text = title.removeprefix("# ").partition(" ")
        word = status.removeprefix("Status: ").partition(".")[0]
        expected.append(f"| [{number}]({path.name}) | {text} | {word} |")
    listed = (folder / "README.md").read_text().splitlines()
    assert expected
    assert [line for line in listed if line.startswith("| [")] == expected
