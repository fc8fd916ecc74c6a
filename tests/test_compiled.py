"""What is compiled of learning gives the numbers of NumPy and torch, and refuses what can't be."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl import compiled
from agilerl.algorithms import losses
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.components.replay_buffer import ReplayBuffer, different
from agilerl.finite import finite, within
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.networks.mlp_kernel import FlatModule

needs_compiled = pytest.mark.skipif(not compiled.AVAILABLE, reason="nothing is compiled here")
Array = np.ndarray[Any, np.dtype[Any]]

c: Any = getattr(compiled, "learning", None)


@contextmanager
def in_numpy() -> Iterator[None]:
    """Turn off within the block what is compiled."""
    before = compiled.enabled
    compiled.enabled = False
    try:
        yield
    finally:
        compiled.enabled = before


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numbers(*values: int) -> Array:
    return np.array(values, np.int64)


# ------------------------------------------------------------------------------------------ drawing


@needs_compiled
@given(st.integers(0, 300), st.integers(0, 10_000), st.integers(0, 99))
@settings(deadline=None)
def test_the_same_rows_are_chosen_with_and_without(count: int, more: int, seed: int) -> None:
    size = count + more
    rows = different(np.random.default_rng(seed), count, size)
    with in_numpy():
        expected = different(np.random.default_rng(seed), count, size)
    assert np.array_equal(rows, expected)
    assert len(set(rows.tolist())) == count
    assert ((rows >= 0) & (rows < size)).all()


def test_each_subset_is_as_likely() -> None:
    rng = np.random.default_rng(1)
    drawn = [frozenset(different(rng, 3, 6).tolist()) for _ in range(20_000)]
    shares = [drawn.count(frozenset(kind)) / 20_000 for kind in combinations(range(6), 3)]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / 20] * 20, abs=5 * np.sqrt(0.05 * 0.95 / 20_000))


@needs_compiled
@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0.0), 1.0, -1.0, 1e300])
def test_rows_at_the_edge_stay_below_the_size(uniform: float) -> None:
    rows = np.empty(4, np.int64)
    c.choose(np.full(4, uniform), 4, rows)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_batch_is_rows_of_the_buffer(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "enabled", enabled)
    memory = ReplayBuffer(2, 50, ["state", "action", "reward", "next_state", "done"], seed=3)
    fields = floats(60, 2, 3), np.arange(60), floats(60), floats(60, 2, 3, seed=1), floats(60)
    memory.save2memoryVectEnvs(*fields)  # the first ten are gone
    batch = memory.draw(20)
    rows = batch[1][:, 0].astype(int)
    assert len(set(rows)) == 20
    assert rows.min() >= 10
    for values, field in zip(batch, fields, strict=True):
        assert np.array_equal(values.reshape(20, -1), field[rows].reshape(20, -1))
        assert values.dtype == np.float32
        assert values.flags.carray


# --------------------------------------------------------------------------------------- Q-learning


def losses_of(rows: int, actions: int, huber: bool, seed: int) -> list[Any]:
    """Return targets, loss and gradient of a batch."""
    rng = np.random.default_rng(seed)
    rewards, q = floats(rows, seed=seed), floats(rows, actions, seed=seed + 1)
    dones = (rng.random(rows) < 0.2).astype(np.float32)
    next_q, chooser = floats(rows, actions, seed=seed + 2), floats(rows, actions, seed=seed + 3)
    taken = rng.integers(actions, size=rows)
    targets = losses.q_targets(rewards, dones, next_q, chooser, 0.97)
    return [targets, *losses.q_learning(q, taken, targets, huber)]


@needs_compiled
@given(st.integers(1, 80), st.integers(1, 9), st.booleans(), st.integers(0, 99))
@settings(deadline=None)
def test_the_loss_is_that_of_numpy(rows: int, actions: int, huber: bool, seed: int) -> None:
    mine = losses_of(rows, actions, huber, seed)
    with in_numpy():
        expected = losses_of(rows, actions, huber, seed)
    for one, other in zip(mine, expected, strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-7)
    assert mine[2].dtype == np.float32


@pytest.mark.parametrize("enabled", [True, False])
def test_the_chooser_chooses_and_the_others_value(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "enabled", enabled)
    next_q = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    chooser = np.array([[9, 0], [0, 9], [9, 0]], np.float32)
    rewards, dones = np.array([10, 20, 30], np.float32), np.array([0, 0, 1], np.float32)
    targets = losses.q_targets(rewards, dones, next_q, chooser, 0.5)
    assert targets.tolist() == [10.5, 22, 30]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_hides_a_value_that_is_not_finite(
    enabled: bool, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "enabled", enabled)
    zeros = np.zeros(2, np.float32)
    for place in range(3):
        q = np.zeros((2, 3), np.float32)
        q[1, place] = value
        with np.errstate(all="ignore"):
            targets = losses.q_targets(zeros, zeros, q, q, 0.9)
            loss, _ = losses.q_learning(q, numbers(0, place), zeros)
        assert np.isfinite(targets).tolist() == [True, False]
        assert not np.isfinite(loss)


def test_batches_that_lie_otherwise_in_memory_are_read_as_well() -> None:
    columns, wide = floats(5, 4), floats(5, 8, seed=1)
    given = columns[:, 0], columns[:, 1], wide[:, ::2], np.asfortranarray(floats(5, 4, seed=2))
    targets = losses.q_targets(*given, 0.9)
    assert np.array_equal(targets, losses.q_targets(*(x.copy() for x in given), 0.9))
    actions = np.arange(10, dtype=np.int32)[::2] % 4
    loss, gradient = losses.q_learning(wide[:, ::2], actions, columns[:, 2])
    again = losses.q_learning(wide[:, ::2].copy(), actions.copy(), columns[:, 2].copy())
    assert loss == pytest.approx(float(again[0]))
    assert np.array_equal(gradient, again[1])


@pytest.mark.parametrize("enabled", [True, False])
def test_other_shapes_and_types_mean_what_they_do_in_numpy(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "enabled", enabled)
    q = np.array([[1, 2], [3, 4]], np.float32)
    one = np.ones(1, np.float32)  # for all rows
    assert losses.q_targets(one, one - 1, q, q, 0.5).tolist() == [2, 3]
    assert float(losses.q_learning(q, numbers(0, 1), one)[0]) == pytest.approx(4.5)
    with pytest.raises(IndexError):
        losses.q_learning(q, np.array([0.9, 1.0]), np.zeros(2, np.float32))
    with pytest.raises(IndexError):
        losses.q_targets(one, one, q, np.eye(1, 4, 3, dtype=np.float32), 0.5)


# ----------------------------------------------------------------------------------------- checking


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_finite_and_within(
    enabled: bool, dtype: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "enabled", enabled)
    values = np.full((2, size), 5, dtype)
    assert finite(values)
    assert within(values, 5.0)
    assert within(values.T, 5.0)
    assert within(values[:, ::2], 5.0)
    assert within(values, 4.5) == (size == 0)
    for odd in (np.nan, np.inf, -np.inf, -6.0):
        if size and np.dtype(dtype).kind == "f":
            values[1, size // 2] = odd
            assert finite(values) == np.isfinite(odd)
            assert not within(values, 5.0)
            assert not finite(values) or within(values, 6.0)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_are_finite(
    enabled: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "enabled", enabled)
    values = np.full(3, np.finfo(dtype).min)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finite(values)
        assert within(values, float(np.finfo(dtype).max))


# ------------------------------------------------------------------------------ vectors of weights


@needs_compiled
@given(st.integers(1, 70), st.integers(0, 99), st.sampled_from([1e-5, 1e-3, 0.3]))
@settings(deadline=None, max_examples=30)
def test_adam_makes_the_steps_of_torch(width: int, seed: int, lr: float) -> None:
    weights = floats(width, seed=seed)
    parameter = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    optimizer = torch.optim.Adam([parameter], lr=lr, betas=(0.85, 0.99), eps=1e-6)
    mean, square = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for step in range(1, 6):
        gradient = floats(width, seed=seed + step) * 10.0 ** (step - 3)
        parameter.grad = torch.from_numpy(gradient.astype(np.float32))
        optimizer.step()
        c.adam(weights, gradient.astype(np.float32), mean, square, step, lr, 0.85, 0.99, 1e-6)
    state = optimizer.state[parameter]
    for mine, theirs in (
        (weights, parameter),
        (mean, state["exp_avg"]),
        (square, state["exp_avg_sq"]),
    ):
        assert np.allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=lr * 1e-5)


@needs_compiled
def test_adam_without_memory_keeps_small_gradients() -> None:
    ten_thousand, one = np.full(3, 1e4, np.float32), np.ones(3, np.float32)
    weights, gradient = np.zeros(3, np.float32), np.full(3, 1e-5, np.float32)
    c.adam(weights, gradient, ten_thousand, one, 2, 1e-3, 0.0, 0.0, 1e-12)
    assert ten_thousand == pytest.approx(1e-5)
    assert weights == pytest.approx(-1e-3)


@pytest.mark.parametrize("part", ["gradients", "moments", "steps", "weights", "target"])
def test_memory_that_is_shared_while_learning_is_followed(part: str) -> None:
    """Sharing moves a tensor, and all views with it: what was there is gone."""
    nets = [TrainedNetwork(EvolvableMLP(3, 2, [40, 40], seed=0), lr=1e-2) for _ in range(2)]
    for step in range(6):
        for net in nets:
            net.forward(floats(4, 3, seed=step))
            net.backward(floats(4, 2, seed=step + 9))
            assert net.step()
            net.soft_update(0.1)
        net, state = nets[0], nets[0].optimizer.state.values()
        parameters = list(net.module.parameters())
        if step == 2:
            shared = {
                "gradients": [p.grad for p in parameters],
                "moments": [entry["exp_avg_sq"] for entry in state],
                "steps": [entry["step"] for entry in state],
                "weights": parameters,
                "target": list(net.target.parameters()),
            }
            for tensor in shared[part]:
                tensor.share_memory_()
    mine, others = (net.state_dict() for net in nets)
    for name in ("module", "target"):
        assert all(torch.equal(mine[name][k], others[name][k]) for k in mine[name])
    assert str(mine["optimizer"]) == str(others["optimizer"])


@pytest.mark.parametrize("tau", [0.0, 1e-3, 0.3, 0.5, 0.7, 1.0])
def test_a_target_follows(tau: float) -> None:
    net, other = (FlatModule(EvolvableMLP(3, 2, [20], seed=seed)) for seed in (0, 1))
    before, goal = net.weights.astype(np.float64), other.weights.astype(np.float64)
    net.follow(other, tau)
    assert np.allclose(net.weights, before + tau * (goal - before), rtol=1e-6, atol=1e-7)
    assert np.array_equal(other.weights, goal.astype(np.float32))
    if tau in (0.0, 1.0):
        assert np.array_equal(net.weights, (goal if tau else before).astype(np.float32))


def test_a_learning_rate_may_be_a_tensor() -> None:
    nets = [TrainedNetwork(EvolvableMLP(3, 2, [8], seed=0), lr=1e-2) for _ in range(2)]
    nets[1].optimizer.param_groups[0]["lr"] = torch.tensor(1e-2)
    for net in nets:
        net.forward(floats(4, 3))
        net.backward(floats(4, 2, seed=1))
        assert net.step()
    one, other = (net.module.state_dict() for net in nets)
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------- what does not fit


F4, F2X2, I4 = np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int64)
F2, I2 = np.zeros(2, np.float32), np.zeros(2, np.int64)
REFUSED: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("choose", (np.zeros(4), 3, I4.copy()), ValueError, "size: expected 4 or more, got 3"),
    ("choose", (np.zeros(4), -1, I4.copy()), ValueError, "size: expected 4 or more, got -1"),
    ("choose", (F4, 9, I4.copy()), ValueError, "uniforms: expected float64, got format f"),
    ("choose", (np.zeros(4), 9, I2.copy()), ValueError, "rows: expected 4 numbers, got 2"),
    ("choose", (np.zeros(4), "9", I4.copy()), TypeError, "int"),
    ("choose", (np.zeros(4), 9), TypeError, "choose"),
    ("take", (F2X2, numbers(0, 2), F2X2.copy()), ValueError, "rows, out"),
    ("take", (F2X2, numbers(-1), F2X2[:1].copy()), ValueError, "rows, out"),
    ("take", (F2X2, numbers(0), F2X2.copy()), ValueError, "rows, out"),
    ("take", (F2X2, F2, F2X2.copy()), ValueError, "rows: expected int64, got format f"),
    ("take", (F2X2[:, :1], numbers(0), F2[:1].copy()), (ValueError, BufferError), "contiguous"),
    (
        "take",
        (np.array([[1], [2]], object), numbers(0), np.empty((1, 1), object)),
        ValueError,
        "rows",
    ),
    ("take", (F2X2, numbers(0), np.zeros((1, 2), np.int32)), ValueError, "rows, out"),
    ("within", (I4, 1.0), ValueError, "values: expected floats, got format"),
    ("within", (F4, None), TypeError, "must be real"),
    ("q_targets", (F2, F4, F2X2, F2X2, 0.9, F2.copy()), ValueError, "dones: expected 2 numbers"),
    ("q_targets", (F2, F2, F2X2, F4[:3], 0.9, F2.copy()), ValueError, "chooser: expected 4"),
    ("q_targets", (F2, F2, F4[:3], F4[:3], 0.9, F2.copy()), ValueError, "next_q: expected as many"),
    ("q_targets", (F2, F2, F2X2, F2X2, None, F2.copy()), TypeError, "must be real"),
    ("q_loss", (F2X2, numbers(0, 2), F2, False, F2X2.copy()), IndexError, "from 0 to 1, got 2"),
    ("q_loss", (F2X2, numbers(-1, 0), F2, False, F2X2.copy()), IndexError, "from 0 to 1, got -1"),
    ("q_loss", (F2X2, I2, F4, False, F2X2.copy()), ValueError, "actions: expected 4 numbers"),
    ("q_loss", (F4[:3], I2, F2, False, F4[:3].copy()), ValueError, "q: expected as many rows"),
    (
        "q_loss",
        (F2X2, I2, F2.astype(np.float64), 0, F2X2.copy()),
        ValueError,
        "targets: expected f",
    ),
    ("adam", (F4.copy(), F2, F4.copy(), F4.copy(), *[0.5] * 5), ValueError, "gradient: expected 4"),
    ("adam", (F4.copy(), F4, F4.copy(), F4.copy(), "1", *[0.5] * 4), TypeError, "must be real"),
    ("move", (F4.copy(), F2, 0.5), ValueError, "to: expected 4 numbers, got 2"),
]


@needs_compiled
@pytest.mark.parametrize(("name", "given", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused_and_let_go(
    name: str, given: tuple[Any, ...], error: Any, message: str
) -> None:
    arrays = [x for x in given if isinstance(x, np.ndarray)]
    before = [sys.getrefcount(x) for x in arrays]
    with pytest.raises(error, match=message):
        getattr(c, name)(*given)
    gc.collect()
    assert [sys.getrefcount(x) for x in arrays] == before


@needs_compiled
def test_what_is_read_only_is_not_written() -> None:
    locked = np.zeros(4, np.float32)
    locked.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        c.move(locked, np.ones(4, np.float32), 0.5)
    with pytest.raises((ValueError, BufferError)):
        c.take(F2X2, numbers(0, 1), locked)
    assert not locked.any()
