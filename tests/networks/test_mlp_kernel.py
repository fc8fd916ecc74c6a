"""The kernel gives autograd's numbers, for every activation and algorithm."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks import mlp_kernel
from agilerl.networks.activations import ACTIVATIONS
from agilerl.networks.evolvable_mlp import EvolvableMLP
from tests.algorithms.cases import CASES as ALL
from tests.algorithms.cases import MLP, Case, tensors

CASES = {name: case for name, case in ALL.items() if case.net_config is MLP and case.kernel}
PRECISION = 1e-9


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


def precise(case: Case, activation: str = "relu", **changes: Any) -> Any:
    """Return an agent in float64, its weights drawn large enough to bend every activation."""
    config = {**MLP, "h_size": [12, 9], "activation": activation, "output_vanish": False}
    agent = case.agent(net_config=config, **changes)
    for owned in agent.networks.values():
        owned.module.to(torch.float64)
        owned.target.to(torch.float64)
        with torch.no_grad():
            for i, parameter in enumerate(owned.module.parameters()):
                noise = torch.Generator().manual_seed(i)
                parameter.add_(torch.randn(parameter.shape, generator=noise).double() * 0.3)
    return agent


def first_gradients(agent: Any, name: str) -> list[torch.Tensor]:
    """Return the gradients of an agent's first learn step, as its first moments tell them."""
    owned = agent.networks[name]
    beta = owned.optimizer.param_groups[0]["betas"][0]
    state = owned.optimizer.state
    return [state[p]["exp_avg"] / (1 - beta) for p in owned.module.parameters()]


def q_loss(agent: Any, batch: list[torch.Tensor]) -> torch.Tensor:
    """Return the loss of DQN or CQN, written out with autograd from the papers."""
    states, actions, rewards, next_states, dones = map(torch.as_tensor, agent.unpack(batch))
    rewards, dones = rewards.double(), dones.double()
    with torch.no_grad():
        next_q = agent.actor_target(next_states)
        chooser = agent.actor(next_states) if agent.double else next_q
        value = next_q[torch.arange(len(next_q)), chooser.argmax(1)]
        target = rewards + agent.gamma * (1 - dones) * value
    q = agent.actor(states)
    taken = q[torch.arange(len(q)), actions]
    criterion = torch.nn.functional.huber_loss if agent.huber else torch.nn.functional.mse_loss
    loss = criterion(taken, target)
    if agent.algo == "CQN":
        loss = loss + agent.alpha * (torch.log(torch.exp(q).sum(1)) - taken).mean()
    return loss


def critic_losses(agent: Any, batch: list[torch.Tensor], rng: Any) -> dict[str, torch.Tensor]:
    """Return the losses of DDPG's and TD3's critics; their actions are in [-1, 1]."""
    states, actions, rewards, next_states, dones = map(torch.as_tensor, agent.unpack(batch))
    rewards, dones = rewards.double()[:, None], dones.double()[:, None]
    noise = torch.from_numpy(rng.standard_normal(actions.shape, dtype="float32"))
    critics = {name: owned for name, owned in agent.networks.items() if name != "actor"}
    with torch.no_grad():
        policy = agent.actor_target(next_states) + (0.2 * noise).clamp(-0.5, 0.5)
        values = [owned.target(next_states, policy.clamp(-1, 1)) for owned in critics.values()]
        target = rewards + agent.gamma * (1 - dones) * torch.stack(values).amin(0)
    return {
        name: torch.nn.functional.mse_loss(owned.module(states, actions.double()), target)
        for name, owned in critics.items()
    }


def clipped(agent: Any, gradients: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the gradients of one network, scaled to the norm that the agent allows."""
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    limit = torch.inf if agent.max_grad_norm is None else agent.max_grad_norm
    for gradient in gradients:
        yield gradient * min(1.0, limit / (norm + 1e-6))


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "autograd"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", CASES)
def test_the_gradients_of_every_algorithm_are_those_of_its_papers_loss(
    name: str, activation: str, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_kernel, "enabled", kernel)
    case = CASES[name]
    agent, batch = precise(case, activation), case.batch()
    reference = copy.deepcopy(agent)
    if case.cls.discrete:
        losses = {"actor": q_loss(reference, batch)}
    else:
        losses = critic_losses(reference, batch, copy.deepcopy(agent.rng))
    assert agent.learn(batch) == pytest.approx(sum(x.item() for x in losses.values()), rel=1e-9)
    if not case.cls.discrete:  # the actor climbed the critic as it was after its step
        states = torch.as_tensor(agent.unpack(batch)[0])
        losses["actor"] = -agent.critic(states, reference.actor(states)).mean()
    assert losses.keys() == agent.networks.keys()
    for part, loss in losses.items():
        gradients = torch.autograd.grad(loss, list(reference.networks[part].module.parameters()))
        expected = clipped(agent, gradients)
        for value, right in zip(first_gradients(agent, part), expected, strict=True):
            assert relative_error(value, right) < PRECISION, part


@pytest.mark.parametrize(
    ("name", "activation"),
    [(name, "relu") for name in CASES if "MLP" in name] + [("DDPG, MLP, kernel", "gelu")],
)
def test_200_learn_steps_agree_with_and_without_the_kernel(
    name: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    agents = {kernel: precise(case, activation, lr=1e-3) for kernel in (True, False)}
    batches = [case.batch(seed) for seed in range(20)]
    for step in range(200):
        for kernel, agent in agents.items():
            monkeypatch.setattr(mlp_kernel, "enabled", kernel)
            agent.learn(batches[step % len(batches)])
    mine, its = tensors(agents[True]), tensors(agents[False])
    assert mine.keys() == its.keys()
    for key, value in its.items():
        assert relative_error(mine[key], value) < PRECISION, key


@pytest.mark.parametrize("name", CASES)
def test_in_float32_the_first_steps_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    agents = {kernel: case.agent(lr=1e-3) for kernel in (True, False)}
    for step in range(3):
        losses = {}
        for kernel, agent in agents.items():
            monkeypatch.setattr(mlp_kernel, "enabled", kernel)
            losses[kernel] = agent.learn(case.batch(step))
        assert losses[True] == pytest.approx(losses[False], rel=1e-4)


@pytest.mark.parametrize("output", [None, *(a for a in ACTIVATIONS if a != "prelu")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_and_input_gradients_are_autograds(activation: str, output: str | None) -> None:
    net = EvolvableMLP(
        7, 3, [10, 8], activation, output_activation=output, output_vanish=False, seed=0
    ).to(torch.float64)
    trained = TrainedNetwork(net, lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    state, action = (3 * torch.randn(9, n, generator=rng, dtype=torch.float64) for n in (4, 3))
    grad = torch.randn(9, 3, generator=rng, dtype=torch.float64)
    leaf = action.clone().requires_grad_()
    expected = net(state, leaf)
    (right,) = torch.autograd.grad(expected, leaf, grad)

    assert relative_error(trained.forward(state, action), expected) < PRECISION
    assert relative_error(trained.input_gradient(grad), right) < PRECISION
    assert relative_error(trained.infer(state, action), expected) < PRECISION
    assert relative_error(trained.infer(state, action, target=True), expected) < PRECISION


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 2)], ids=str)
def test_observations_of_any_shape_and_dtype_are_flattened(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = TrainedNetwork(EvolvableMLP(torch.Size(shape).numel(), 2, [8], seed=0), lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    states = torch.randint(255, (5, *shape), generator=rng).to(torch.uint8)
    outputs = net.infer(states)
    monkeypatch.setattr(mlp_kernel, "enabled", False)
    torch.testing.assert_close(outputs, net.infer(states))
    torch.testing.assert_close(outputs, net.infer(states.float()))


@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("hidden", [[1], [40], [3, 50, 2]], ids=str)
def test_every_width_and_batch_size_gives_autograds_gradient(
    hidden: list[int], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(0)
    x, grad = torch.randn(batch, 6, generator=rng), torch.randn(batch, 5, generator=rng)
    found = []
    for kernel in (True, False):
        monkeypatch.setattr(mlp_kernel, "enabled", kernel)
        net = EvolvableMLP(6, 5, hidden, "tanh", output_vanish=False, seed=0).double()
        trained = TrainedNetwork(net, lr=1e-3)
        trained.forward(x.double())
        trained.backward(grad.double())
        trained.step()
        found.append([trained.optimizer.state[p]["exp_avg"].clone() for p in net.parameters()])
    for value, right in zip(*found, strict=True):
        assert relative_error(value, right) < PRECISION
