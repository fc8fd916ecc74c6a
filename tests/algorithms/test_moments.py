"""Target and optimiser follow the edits of their network."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from agilerl.algorithms.optimizer_state import (
    make_adam,
    moments_of,
    replace_parameters,
    step_state,
)
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks.evolvable_cnn import EvolvableCNN
from tests.algorithms.test_trained_network import inputs, network, train


def layered(kind: str) -> TrainedNetwork:
    if kind == "mlp":
        return network()
    cnn = EvolvableCNN((2, 6, 6), [6, 6], [3, 2], [1, 1], [12], 2, seed=0, min_mlp_nodes=2)
    return TrainedNetwork(cnn, lr=1e-2)


def moments(net: TrainedNetwork) -> dict[str, torch.Tensor]:
    return {n: net.optimizer.state[p]["exp_avg"] for n, p in net.module.layers.named_parameters()}


def images(seed: int) -> torch.Tensor:
    return torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


GROWTH = [
    ("mlp", "add_node", {"hidden_layer": 0, "numb_new_nodes": 5}),
    ("mlp", "add_node", {"hidden_layer": 1, "numb_new_nodes": 5}),
    ("mlp", "add_layer", {}),
    ("cnn", "add_cnn_channel", {"hidden_layer": 0, "numb_new_channels": 5}),
    ("cnn", "add_mlp_node", {"hidden_layer": 0, "numb_new_nodes": 5}),
    ("cnn", "add_cnn_layer", {}),
    ("cnn", "add_mlp_layer", {}),
]


@pytest.mark.parametrize(("kind", "method", "choice"), GROWTH)
def test_growth_keeps_the_moments_of_kept_weights_and_new_ones_are_zero(
    kind: str, method: str, choice: dict[str, int]
) -> None:
    net = layered(kind)
    for seed in range(3):
        net.backward(2 * net.forward(inputs(seed) if kind == "mlp" else images(seed)))
        net.step()
    before = {name: value.clone() for name, value in moments(net).items()}
    assert net.evolvable.edit(method, **choice) is not None
    after = moments(net)
    for name, new in after.items():
        expected = torch.zeros(new.shape)
        if name in before:
            assert before[name].abs().sum() > 0
            expected[tuple(slice(n) for n in before[name].shape)] = before[name]
        assert torch.equal(new, expected), name
    steps = {float(net.optimizer.state[p]["step"]) for p in net.module.parameters()}
    assert steps == {3.0}


def test_shrinking_keeps_the_moments_of_what_stays() -> None:
    net = network()
    for seed in range(3):
        train(net, seed)
    before = {name: value.clone() for name, value in moments(net).items()}
    rows = net.module.named_tensors()["linear_0.weight"].clone()
    net.module.remove_node(hidden_layer=0, numb_new_nodes=6)
    kept = net.module.named_tensors()["linear_0.weight"]
    index = [next(i for i, row in enumerate(rows) if torch.equal(row, k)) for k in kept]
    after = moments(net)
    assert torch.equal(after["linear_0.weight"], before["linear_0.weight"][index])
    assert torch.equal(after["linear_1.weight"], before["linear_1.weight"][:, index])
    assert torch.equal(after["output.weight"], before["output.weight"])


def test_the_moments_survive_a_change_of_activation_or_learning_rate() -> None:
    net = network()
    train(net)
    before = {name: value.clone() for name, value in moments(net).items()}
    net.module.change_activation("gelu")
    net.lr = 0.5
    after = moments(net)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert net.lr == net.optimizer.param_groups[0]["lr"] == 0.5
    assert net.target.spec.activation == "gelu"


def test_the_target_follows_growth_and_is_not_reset() -> None:
    net = network()
    for seed in range(3):
        train(net, seed)
        net.soft_update(0.3)
    before = net.infer(inputs(), target=True), net.infer(inputs())
    assert not torch.equal(*before)
    net.module.add_node()
    net.module.add_layer()
    assert net.target.spec == net.module.spec
    for target, old in ((True, before[0]), (False, before[1])):
        assert (net.infer(inputs(), target=target) - old).abs().max() < 1e-6


# ---------------------------------------------------------------------------------- optimiser state


def test_parameters_of_others_in_the_same_optimiser_stay() -> None:
    others = [nn.Parameter(torch.ones(2)) for _ in "ab"]
    held, live = ({"w": nn.Parameter(torch.ones(n))} for n in (3, 4))
    optimizer = torch.optim.Adam([others[0], held["w"], others[1]])
    for p in (*others, held["w"]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    kept, steps = moments_of(optimizer, held), step_state(optimizer, held)
    assert set(kept["w"]) == {"exp_avg", "exp_avg_sq"}
    moments = {"w": {"exp_avg": torch.full((4,), 7.0)}}
    replace_parameters(optimizer, held, live, moments, steps)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for p in (others[0], live["w"], others[1])
    ]
    assert set(optimizer.state) == {*others, live["w"]}
    assert optimizer.state[live["w"]]["exp_avg"].tolist() == [7.0] * 4
    assert optimizer.state[live["w"]]["step"].item() == 1


@pytest.mark.parametrize(
    "verb", ["infer", "forward", "soft_update", "state_dict", "optimizer", "target"]
)
def test_whatever_is_used_first_after_an_edit_follows_it(verb: str) -> None:
    net = network()
    train(net)
    net.module.add_node(hidden_layer=1, numb_new_nodes=3)
    use = {
        "infer": lambda: net.infer(inputs(), target=True),
        "forward": lambda: net.forward(inputs()),
        "soft_update": lambda: net.soft_update(0.5),
        "state_dict": net.state_dict,
        "optimizer": lambda: net.optimizer,
        "target": lambda: net.target,
    }
    use[verb]()
    assert net.target.spec == net.module.spec
    held = [id(p) for p in net.optimizer.param_groups[0]["params"]]
    assert held == [id(p) for p in net.module.parameters()]
    assert {float(net.optimizer.state[p]["step"]) for p in net.module.parameters()} == {1.0}
    train(net)
    net.soft_update(1.0)
    torch.testing.assert_close(
        [p.detach() for p in net.target.parameters()],
        [p.detach() for p in net.module.parameters()],
    )


def test_the_optimiser_is_an_adam_as_any_other() -> None:
    parameter, steps = nn.Parameter(torch.ones(2)), []
    optimizer, plain = make_adam([parameter], 0.1), torch.optim.Adam([parameter], 0.1, fused=True)
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.state_dict() == plain.state_dict()
    assert optimizer.defaults == plain.defaults
    optimizer.register_step_pre_hook(lambda *_: steps.append(parameter.tolist()))
    parameter.grad = torch.ones(2)
    optimizer.step()
    assert steps == [[1, 1]]
    assert parameter.tolist() == pytest.approx([0.9, 0.9])
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    assert len(optimizer.param_groups) == 2


def test_an_agent_does_not_load_the_compiler_of_torch() -> None:
    code = """
import sys, numpy as np
from agilerl import initialPopulation
(agent,) = initialPopulation("DQN", (4,), 2, False, {"arch": "mlp", "h_size": [8]}, {}, 1, seed=1)
agent.learn([np.zeros((4, width), np.float32) for width in (4, 1, 1, 4, 1)])
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
