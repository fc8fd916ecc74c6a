"""Bad arguments, networks and observations of agents are named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from agilerl.algorithms.arrays import one_hot
from agilerl.algorithms.cqn import CQN
from agilerl.algorithms.ddpg import DDPG
from agilerl.algorithms.dqn import DQN
from agilerl.devices import check_device
from agilerl.errors import ConfigError, EnvError
from agilerl.networks.build import build_network
from agilerl.networks.evolvable_cnn import EvolvableCNN
from agilerl.networks.evolvable_mlp import EvolvableMLP
from tests.algorithms.cases import CASES

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


# ------------------------------------------------------------------------------------------ agents

AGENT: dict[str, Any] = {"state_dim": 4, "action_dim": 2, "one_hot": False}


@pytest.mark.parametrize("cls", [DQN, CQN, DDPG])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state_dim", 0),
        ("state_dim", 4.0),
        ("state_dim", (3, 0)),
        ("state_dim", ()),
        ("action_dim", 0),
        ("action_dim", 2.0),
        ("batch_size", 0),
        ("batch_size", 64.0),
        ("learn_step", 0),
        ("learn_step", 1.5),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("lr", "fast"),
        ("gamma", 1.5),
        ("gamma", math.nan),
        ("tau", -0.1),
        ("tau", 2),
        ("accelerator", object()),
        ("device", "gpu"),
        ("device", "mps"),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_a_bad_argument_of_an_agent_is_named(cls: type[Any], field: str, value: Any) -> None:
    if field == "device" and value == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ConfigError, match=rf"^{field}\b"):
        cls(**{**AGENT, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 12.5),
        ("learn_step", "2"),
        ("lr", -1),
        ("gamma", 1.2),
        ("tau", float("nan")),
        ("alpha", -0.5),
    ],
)
def test_a_bad_value_is_refused_later_too(field: str, value: Any) -> None:
    agent = CQN(**AGENT)
    before = getattr(agent, field)
    with pytest.raises(ConfigError, match=f"^{field}: expected"):
        setattr(agent, field, value)
    assert getattr(agent, field) == before


def test_sizes_are_integers_whatever_sets_them() -> None:
    agent = DQN(**{**AGENT, "batch_size": np.int64(32)})
    agent.learn_step = np.int32(3)
    assert [type(agent.batch_size), type(agent.learn_step)] == [int, int]


@pytest.mark.parametrize("name", ["CQN, MLP, kernel", "DDPG, MLP, kernel"])
def test_numbers_of_numpy_are_taken_as_settings(name: str) -> None:
    case = CASES[name]
    agent, plain = case.agent(), case.agent()
    agent.gamma, plain.gamma = np.linspace(0.9, 0.99, 4)[1], float(np.linspace(0.9, 0.99, 4)[1])
    agent.tau, plain.tau = np.float32(0.5), 0.5
    if name.startswith("CQN"):
        agent.alpha, plain.alpha = np.float64(0.25), 0.25
    assert agent.learn(case.batch()) == plain.learn(case.batch())


@pytest.mark.parametrize(("field", "value"), [("policy_freq", 0), ("policy_freq", 1.5)])
def test_a_bad_argument_of_ddpg_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        DDPG(**AGENT, **{field: value})


@pytest.mark.parametrize("alpha", [-1, math.inf])
def test_a_bad_argument_of_cqn_is_named(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        CQN(**AGENT, alpha=alpha)


def test_one_hot_needs_a_number_of_states() -> None:
    with pytest.raises(ConfigError, match="one_hot=True needs the number of states"):
        DQN((3, 4), 2, True)


@NO_GPU
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
@pytest.mark.parametrize(
    "make",
    [
        lambda device: DQN(**AGENT, device=device),
        lambda device: DDPG(**AGENT, device=device),
        lambda device: EvolvableMLP(4, 2, [8], device=device),
        lambda device: EvolvableCNN((3, 8, 8), [4], [3], [1], [8], 2, device=device),
        lambda device: DQN.load("nowhere", device),
    ],
    ids=["DQN", "DDPG", "EvolvableMLP", "EvolvableCNN", "load"],
)
def test_cuda_without_a_gpu_is_one_clear_error_at_construction(make: Any, device: Any) -> None:
    with pytest.raises(ConfigError, match=r"^device: 'cuda.*no GPU.*device='cpu'"):
        make(device)


def test_devices_that_are_there_are_taken() -> None:
    for device in (None, "cpu", torch.device("cpu")):
        assert check_device(device) == torch.device("cpu")


# --------------------------------------------------------------------------------- observations


@pytest.mark.parametrize(
    "state",
    [
        np.zeros(5),
        np.zeros((2, 5)),
        np.zeros((2, 1)),
        np.zeros((2, 2, 4)),
        np.float32(0),
        [[0, 0, 0, 0], [0, 0, 0]],
        "state",
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", [DQN, DDPG])
def test_an_observation_of_another_shape_is_named_though_it_would_broadcast(
    cls: type[Any], state: Any
) -> None:
    with pytest.raises(EnvError, match=r"^state: expected"):
        cls(**AGENT).getAction(state)


@pytest.mark.parametrize("row", [0, 3])
def test_a_batch_of_another_shape_is_named_before_anything_is_learnt(row: int) -> None:
    agent = DQN(**AGENT)
    batch = [torch.zeros(8, n) for n in (4, 1, 1, 4, 1)]
    batch[row] = torch.zeros(8, 1)
    before = [p.clone() for p in agent.actor.parameters()]
    with pytest.raises(EnvError, match=r"expected observations of shape \(4,\), got \(1,\)"):
        agent.learn(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True))


@pytest.mark.parametrize("state", [4, -1, 1.5, math.nan, [0, 7], [0.0, 0.5]])
def test_a_state_that_is_none_of_the_n_is_named(state: Any) -> None:
    with pytest.raises(EnvError, match=r"expected integers in 0\.\.3"):
        DQN(4, 2, True).getAction(state)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, bool])
@pytest.mark.parametrize("library", [np.array, torch.from_numpy])
def test_discrete_states_become_rows_with_a_single_one(dtype: Any, library: Any) -> None:
    states = library(np.array([[1], [0], [1]]).astype(dtype))
    rows = one_hot(states, 3)
    assert type(rows) is type(states)
    assert rows.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert str(rows.dtype).endswith("float32")


def test_channels_last_is_named_as_the_cure_for_images() -> None:
    agent = DQN((3, 8, 8), 2, False)
    with pytest.raises(EnvError, match="CHANNELS_LAST"):
        agent.getAction(np.zeros((8, 8, 3), np.uint8))


# ------------------------------------------------------------------------------------- net_config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"arch": "rnn"}, r"net_config\['arch'\]: 'rnn' is not known"),
        ({"arch": "gpt"}, "'gpt' is not known"),
        ({"arch": None}, "is not known"),
        ("mlp", "expected a dict"),
        ({"h_size": [8], "c_size": [8]}, "unknown key 'c_size'"),
        ({"h_size": []}, "hidden_size: expected a non-empty list"),
        ({"h_size": 64}, "hidden_size: expected a non-empty list"),
        ({"h_size": [64, 0]}, r"hidden_size\[1\]: expected an integer >= 1, got 0"),
        ({"h_size": [64.5]}, r"hidden_size\[0\]: expected an integer"),
        ({"activation": "rleu"}, r"activation: 'rleu' is not known.*Did you mean 'relu'"),
        ({"min_mlp_nodes": 0}, "min_mlp_nodes"),
        ({"max_mlp_nodes": 2.5}, "max_mlp_nodes"),
        ({"min_mlp_nodes": 90, "max_mlp_nodes": 80}, "min_mlp_nodes: 90 is above max_mlp_nodes=80"),
        ({"arch": "cnn"}, r"input_shape: expected \(channels, height, width\)"),
    ],
    ids=str,
)
def test_a_bad_net_config_is_named(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DQN(**AGENT, net_config=config)


SIZES: dict[str, Any] = {"c_size": [4, 4], "k_size": [3, 3], "s_size": [1, 1], "h_size": [8]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_size": [3, 9]}, "too small for kernels"),
        ({"s_size": [4, 4]}, "too small for kernels"),
        ({"k_size": [3]}, "differ in number"),
        ({"c_size": [4, 0]}, r"channel_size\[1\]"),
        ({"s_size": [1, 0]}, r"stride_size\[1\]"),
        ({"k_size": [3, 1.5]}, r"kernel_size\[1\]"),
        ({"c_size": 4}, "channel_size: expected a non-empty list"),
        ({"max_channels": 0}, "max_channels"),
        ({"min_cnn_layers": "one"}, "min_cnn_layers"),
    ],
    ids=str,
)
def test_a_bad_convolution_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DQN((3, 8, 8), 2, False, net_config={"arch": "cnn", **SIZES, **change})


@pytest.mark.parametrize("shape", [5, (3, 8), (3, 8, 0), (3, 8, 8.0), "388"])
def test_a_bad_image_shape_is_named(shape: Any) -> None:
    with pytest.raises(ConfigError, match="input_shape"):
        EvolvableCNN(shape, [4], [3], [1], [8], 2)


@pytest.mark.parametrize(
    "arguments", [(0, 2, [8]), (4, 0, [8]), (4.0, 2, [8]), (4, 2, []), (4, 2, [8], "swish")]
)
def test_a_bad_mlp_is_named(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError):
        EvolvableMLP(*arguments)


def test_a_net_config_is_copied_and_its_defaults_are_those_of_the_readme() -> None:
    config = {"arch": "mlp", "h_size": [32, 32]}
    agent = DQN(**AGENT, net_config=config)
    assert agent.actor.spec.hidden_size == (32, 32)
    assert agent.net_config == config
    assert agent.net_config is not config
    assert agent.net_config["h_size"] is not config["h_size"]
    image = build_network({"arch": "cnn"}, (3, 40, 40), 2)
    assert image.spec.channel_size == (32, 32)
    assert (image.spec.kernel_size, image.spec.stride_size) == ((8, 4), (4, 2))
    assert image.spec.hidden_size == (128,)
    assert image.spec.normalize is True
