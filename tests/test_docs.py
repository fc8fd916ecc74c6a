"""The documentation: every Python block runs, tables say what the code says, the site builds."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agilerl.algorithms import AGENTS, ALGORITHMS
from agilerl.algorithms.settings import hyperparameters_of
from agilerl.networks.build import NET_CONFIG_KEYS
from agilerl.networks.evolvable_cnn import CNNSpec, EvolvableCNN
from agilerl.networks.evolvable_mlp import EvolvableMLP, MLPSpec
from agilerl.runs import run_settings as evolve
from agilerl.utils.utils import AGENT_KEYS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: Pages whose blocks other tests run.
ELSEWHERE = {"language_environment.md", "offline_data.md"}
PAGES = sorted(
    page.name
    for page in DOCS.glob("*.md")
    if page.name not in ELSEWHERE and BLOCK.search(page.read_text())
)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs_in_turn(page: str, tmp_path: Path) -> None:
    code = "\n".join(BLOCK.findall((DOCS / page).read_text()))
    code = code.replace('RayExecutor(address="auto")', "RayExecutor(workers=2)")
    if "RayExecutor" in code:
        pytest.importorskip("ray")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    script = tmp_path / "page.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_other_pages_are_those_that_other_tests_run() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for page in ELSEWHERE:
        assert any(page in text for text in texts if "ELSEWHERE = {" not in text), page


# ---------------------------------------------------------------------------------------- tables


def number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def hyperparameter_rows() -> list[str]:
    """Return one row for each learning hyper-parameter that mutations may move."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, agent_class in ALGORITHMS.items():
        for argument, declared in hyperparameters_of(agent_class).items():
            key = argument.upper() if argument.upper() in AGENT_KEYS else ""
            low, high = declared.range
            default = inspect.signature(agent_class).parameters[argument].default
            moves = "logarithmic" if declared.log else "whole" if declared.integer else "linear"
            moves = "by its horizon" if declared.complement else moves
            cells = f"`{argument}`", f"`{key}`" if key else "", number(default)
            row = (*cells, f"[{low:g}, {high:g}]", moves)
            rows.setdefault(row, []).append(name)
    return ["| " + " | ".join([*row, ", ".join(names)]) + " |" for row, names in rows.items()]


def setting_rows() -> list[str]:
    """Return one row for each INIT_HP key of an agent that stays as it is."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, agent_class in AGENTS.items():
        parameters = inspect.signature(agent_class).parameters
        for key, argument in AGENT_KEYS.items():
            if argument in parameters and argument not in hyperparameters_of(agent_class):
                rows.setdefault((f"`{key}`", number(parameters[argument].default)), []).append(name)
    kept = {k: v for k, v in rows.items() if k[0].strip("`") not in HIDDEN}
    return ["| " + " | ".join([*row, ", ".join(names)]) + " |" for row, names in kept.items()]


HIDDEN = ("INDEX", "MUTATION", "DEVICE", "ACCELERATOR", "SEED")


def network_rows() -> list[str]:
    """Return one row for each key of net_config that has a default of its own."""
    rows = []
    for arch, (network, spec) in NETWORKS.items():
        parameters = inspect.signature(network).parameters
        limits = {field.name: field.default for field in dataclasses.fields(spec)}
        for key in NET_CONFIG_KEYS[arch]:
            if key in spec.limit_names():
                rows.append(f"| {arch} | `{key}` | {limits[key]} |")
            elif key in parameters and parameters[key].default is not inspect.Parameter.empty:
                rows.append(f"| {arch} | `{key}` | {number(parameters[key].default)} |")
    return rows


NETWORKS: dict[str, Any] = {"mlp": (EvolvableMLP, MLPSpec), "cnn": (EvolvableCNN, CNNSpec)}


def evolve_rows() -> list[str]:
    """Return one row for each default of ``evolve``."""
    parts = {"INIT_HP": evolve.INIT_HP, "MUTATION_PARAMS": evolve.MUTATION_PARAMS,
             "schedule": evolve.SCHEDULE}  # fmt: skip
    return [
        f"| {part} | `{key}` | `{yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}` |"
        for part, values in parts.items()
        for key, value in values.items()
    ]


TABLES = {
    "hyper-parameters": hyperparameter_rows,
    "settings": setting_rows,
    "networks": network_rows,
    "evolve": evolve_rows,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_code_says(name: str) -> None:
    page = (DOCS / "hyperparameters.md").read_text()
    (shown,) = re.findall(rf"<!-- {name} -->\n.*?\n\| -.*?\n(.*?)\n\n", page, re.DOTALL)
    assert shown.splitlines() == TABLES[name]()


# ------------------------------------------------------------------------------------------ site


def test_every_page_is_in_the_site_and_every_link_leads_somewhere() -> None:
    config = yaml.load((ROOT / ".mkdocs.yml").read_text(), yaml.BaseLoader)
    text = yaml.dump(config["nav"])
    assert set(re.findall(r"[\w_]+\.md", text)) == {page.name for page in DOCS.glob("*.md")}
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = ["mkdocs", "build", "--strict", "--config-file", ".mkdocs.yml", "-d", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    reference = (tmp_path / "api" / "index.html").read_text()
    for name in ("agilerl.training.train.train", "agilerl.algorithms.dqn.DQN.learn"):
        assert f'id="{name}"' in reference
