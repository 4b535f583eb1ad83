"""What surrounds the code: package metadata, workflows, issue templates and the release script."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from sanic_proxy import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github").rglob("*.yml"))
PREPARED = [
    "sanic_proxy/__init__.py",
    "CHANGELOG.md",
    "scripts/deploy/kubernetes/base/kustomization.yaml",
    "scripts/deploy/kubernetes/helm/sanic-proxy/Chart.yaml",
]


def test_the_build_backend_is_the_one_that_is_pinned() -> None:
    (backend,) = PROJECT["build-system"]["requires"]
    assert backend == "flit_core==4.2.0"
    pinned = (ROOT / "scripts/requirements/build.txt").read_text("utf-8")
    assert pinned.startswith(backend.replace("flit_core", "flit-core"))


def test_the_metadata_has_what_an_index_shows() -> None:
    project = PROJECT["project"]
    assert {"Source", "Documentation", "Changelog", "Issues"} <= set(project["urls"])
    assert (
        f"Programming Language :: Python :: {project['requires-python'].removeprefix('>=')}"
        in (project["classifiers"])
    )
    assert project["keywords"] == sorted(project["keywords"])
    links = (ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text("utf-8")
    assert f"url: {project['urls']['Source']}/security/advisories/new" in links


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_scripts_that_exist_with_few_rights(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("timeout-minutes") or job.get("environment")
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            script = re.match(r"(?:\.ci|scripts)/\S+", step.get("run", ""))
            assert script is None or (ROOT / script[0]).stat().st_mode & 0o111


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_files_for_the_host_are_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text("utf-8"))


def test_the_readme_of_the_wheel_has_absolute_links_only() -> None:
    command = [sys.executable, str(ROOT / "scripts/docs/links.py"), str(ROOT / "README.md")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    targets = re.findall(r"\]\(([^)]+)\)", done.stdout)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    source = PROJECT["project"]["urls"]["Source"]
    assert f"({source}/blob/main/scripts/docs/settings.md)" in done.stdout
    assert f"({source}/tree/main/tests/examples)" in done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (*PREPARED, "scripts/release", "scripts/setup.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def prepare(checkout: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scripts/release", "--prepare", version],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_release_writes_its_version_everywhere(checkout: Path) -> None:
    done = prepare(checkout, "7.8.9")
    assert (done.returncode, done.stderr) == (0, "")
    texts = {name: (checkout / name).read_text("utf-8") for name in PREPARED}
    assert all("7.8.9" in text for text in texts.values())
    assert f'"{__version__}"' not in texts["sanic_proxy/__init__.py"]
    chart = yaml.safe_load(texts[PREPARED[3]])
    assert (chart["version"], chart["appVersion"]) == ("7.8.9", "7.8.9")
    assert re.search(r"## Unreleased\n\n## 7\.8\.9 - \d{4}-\d\d-\d\d\n\n###", texts["CHANGELOG.md"])
    assert "nothing under" in prepare(checkout, "7.9.0").stderr


@pytest.mark.parametrize("version", ["0.0.1", "next", "1.2"])
def test_a_version_that_is_older_or_none_changes_nothing(checkout: Path, version: str) -> None:
    assert prepare(checkout, version).returncode == 1
    assert f'"{__version__}"' in (checkout / PREPARED[0]).read_text("utf-8")
