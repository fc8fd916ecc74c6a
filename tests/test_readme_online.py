"""The online code blocks of the public API run as typed: few episodes, and a CPU for the GPU."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.errors import ConfigError
from tests.readme_blocks import CUSTOM_LOOP, EVOLUTION, LOOP, POPULATION, SETTINGS, TRAINING


def execute(*blocks: str, substitutions: dict[str, str]) -> dict[str, Any]:
    """Run blocks one after the other in one namespace, with each substitution made somewhere."""
    text = "\n".join(textwrap.dedent(block) for block in blocks)
    for old, new in substitutions.items():
        assert old in text, f"nothing to substitute for {old!r}"
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, "readme", "exec"), names)
    return names


CPU = {'torch.device("cuda")': 'torch.device("cpu")'}


@pytest.mark.global_rng  # the real wandb draws a name for its run
def test_the_blocks_that_lead_to_train_run_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_SILENT", "true")
    names = execute(
        SETTINGS,
        POPULATION,
        EVOLUTION,
        TRAINING,
        substitutions={
            **CPU,
            "'EPISODES': 2000": "'EPISODES': 2",
            "'EVO_EPOCHS': 20": "'EVO_EPOCHS': 1",
            "n_episodes=": "max_steps=20, n_episodes=",
        },
    )
    assert len(names["trained_pop"]) == 6
    assert np.shape(names["pop_fitnesses"]) == (2, 6)
    assert np.isfinite(names["pop_fitnesses"]).all()
    assert names["memory"].counter == 2 * 6 * 20 * 16
    learnt = [agent.learn_count for agent in names["trained_pop"]]
    assert min(learnt) > 15
    assert all(agent.double for agent in names["trained_pop"])


def test_the_custom_loop_runs_as_typed(capsys: pytest.CaptureFixture[str]) -> None:
    names = execute(
        CUSTOM_LOOP,
        LOOP,
        substitutions={
            **CPU,
            "max_episodes = 1000": "max_episodes = 4",
            "max_steps = 500": "max_steps = 15",
            "evo_epochs = 5": "evo_epochs = 2",
        },
    )
    out = capsys.readouterr().out
    assert "Episode 4/4" in out
    assert out.count("Fitnesses:") == 2
    assert len(names["pop"]) == 6
    assert names["pop"][0].mut == "elite"
    assert [len(agent.fitness) for agent in names["pop"]] == [2] * 6
    assert all(agent.learn_count > 15 for agent in names["pop"])
    assert names["memory"].counter == 4 * 6 * 15 * 16


IMAGES = """
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.hpo.tournament import TournamentSelection
from agilerl.hpo.mutation import Mutations
from agilerl.utils.utils import initialPopulation
from tests.envs import CatchEnv
import numpy as np
INIT_HP = {'BATCH_SIZE': 8, 'LEARN_STEP': 1, 'CHANNELS_LAST': True}
NET_CONFIG = {'arch': 'cnn', 'h_size': [16], 'c_size': [4, 4], 'k_size': [3, 3],
              's_size': [1, 1], 'normalize': True}
env = InProcessVectorEnv([CatchEnv() for _ in range(3)])
state_dim = env.single_observation_space.shape
if INIT_HP['CHANNELS_LAST']:
    state_dim = (state_dim[2], state_dim[0], state_dim[1])
action_dim = env.single_action_space.n
pop = initialPopulation('DQN', state_dim, action_dim, False, NET_CONFIG, INIT_HP, 3)
memory = ReplayBuffer(action_dim, 1000, ["state", "action", "reward", "next_state", "done"])
tournament = TournamentSelection(2, True, 3, 1)
mutations = Mutations('DQN', 0.2, 0.4, 0.2, 0.2, 0.2, 0.2, ['lr'], 0.1, arch='cnn')
"""


def test_the_custom_loop_runs_on_images_with_channels_last() -> None:
    names = execute(
        IMAGES,
        LOOP,
        substitutions={
            "max_episodes = 1000": "max_episodes = 2",
            "max_steps = 500": "max_steps = 12",
            "evo_epochs = 5": "evo_epochs = 1",
        },
    )
    states = names["memory"].sample(20)[0]
    assert tuple(states.shape) == (20, 3, 10, 10)
    assert str(states.dtype) == "torch.uint8"
    assert all(len(agent.fitness) == 2 for agent in names["pop"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("block", [POPULATION, EVOLUTION[: EVOLUTION.index("tournament =")]])
def test_a_gpu_that_is_not_there_is_one_clear_error(block: str) -> None:
    few = SETTINGS.replace("'ENV_NAME': 'LunarLander-v2'", "'ENV_NAME': 'CartPole-v1'")
    with pytest.raises(ConfigError, match=r"device: 'cuda' was asked for.*device='cpu'"):
        execute(few, "action_dim = 2", block, substitutions={})
