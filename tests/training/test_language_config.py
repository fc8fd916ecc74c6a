"""Reading configurations: YAML, overrides, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from agilerl.errors import ConfigError
from agilerl.training.language_config import BCRunConfig, ILQLRunConfig
from agilerl.training.yaml_config import read_config

ROOT = Path(__file__).parents[2]


def written(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text)
    return path


def test_a_number_that_yaml_reads_as_text_is_converted(tmp_path: Path) -> None:
    path = written(tmp_path, "agent: {lr: 1e-3, batch_size: 1e2}")
    config = read_config(BCRunConfig, path)
    assert config.agent.lr == 1e-3
    assert (config.agent.batch_size, type(config.agent.batch_size)) == (100, int)


def test_overrides_go_before_the_file_and_make_sections(tmp_path: Path) -> None:
    path = written(tmp_path, "name: one\nagent: {lr: 0.5}\n")
    overrides = [
        "agent.lr=2e-4",
        "train.updates=7",
        "data.words=null",
        "evaluate.betas=[1, 2]",
        "name=a=b",
    ]
    config = read_config(ILQLRunConfig, path, overrides)
    assert config.agent.lr == 2e-4
    assert config.train.updates == 7
    assert config.data.words is None
    assert config.evaluate.betas == (1.0, 2.0)
    assert config.name == "a=b"


def test_what_is_not_given_takes_its_default(tmp_path: Path) -> None:
    assert read_config(BCRunConfig, written(tmp_path, "")) == BCRunConfig()
    assert read_config(BCRunConfig, written(tmp_path, "agent:\n")) == BCRunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent: {learning_rate: 1}", r"config.yaml: agent: unknown key 'learning_rate'"),
        ("agnet: {lr: 1}", "top level: unknown key 'agnet'. Did you mean 'agent'"),
        ("train: {update: 3}", "Did you mean 'updates'"),
        ("agent: {expectile: 0.7}", "unknown key 'expectile'"),
        ("agent: {lr: fast}", "agent.lr: expected float, got 'fast'"),
        ("agent: {batch_size: 2.5}", "agent.batch_size: expected int, got 2.5"),
        ("agent: {bf16: 1}", "agent.bf16: expected bool, got 1"),
        ("agent: {lr: true}", "agent.lr: expected float, got True"),
        ("name: 3", "name: expected str, got 3"),
        ("agent: 3", "agent: expected a section, got 3"),
        ("evaluate: {temperatures: 1.0}", "evaluate.temperatures: expected a list"),
        ("- 1", "expected 'key: value' lines, got list"),
        ("a: [", "can't be read"),
        ("name: !!python/object/apply:os.getcwd []", "can't be read"),
        ("name: 2001-99-99", "can't be read"),
        ("a: " + 2000 * "[", "can't be read"),
        ("agent: &a {lr: 1}\ntrain: *a", "aliases .* are not read; write the value out"),
        ("name: " + 2**20 * "a", "more than 1,048,576 characters"),
    ],
)
def test_bad_files_are_refused_by_the_name_of_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(BCRunConfig, written(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("name.first=3", "'name' is a value"),
        ("agent.lr=[", "not YAML"),
        ("agent.lr=[&a 1, *a]", "not YAML"),
        ("agent.lr=" + 2000 * "[", "not YAML"),
        ("agent.lrr=3", "Did you mean 'lr'"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(BCRunConfig, written(tmp_path, "name: a"), [override])


def test_nested_aliases_are_refused_before_they_unpack(tmp_path: Path) -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match=r"(?s)aliases .* are not read.*line 2"):
        read_config(BCRunConfig, written(tmp_path, "\n".join(rows)))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: .*can't be read"):
        read_config(BCRunConfig, "absent.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "wordle").glob("*.yaml")))
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    kind = BCRunConfig if path.name.startswith("train_bc") else ILQLRunConfig
    assert read_config(kind, path) != kind()
