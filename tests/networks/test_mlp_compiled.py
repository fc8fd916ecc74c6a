"""The compiled passes give the numbers of those in NumPy, and refuse what does not fit."""

from __future__ import annotations

import gc
import runpy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks import mlp_compiled, mlp_kernel
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.networks.mlp_arrays import ArrayPass
from agilerl.networks.mlp_compiled import CompiledPass

Pass: Any = getattr(mlp_compiled, "Pass", None)
pytestmark = pytest.mark.skipif(
    not mlp_compiled.AVAILABLE, reason="no C compiler was there at the installation"
)

Array = np.ndarray[Any, np.dtype[Any]]


def passes_of(
    inputs: int, outputs: int, hidden: list[int], activation: str | None, output: str | None
) -> tuple[ArrayPass, Array, CompiledPass, Array]:
    """Return passes of one network with the vectors that their gradients go to."""
    net = EvolvableMLP(
        inputs, outputs, hidden, activation or "linear", output, output_vanish=False, seed=0
    )
    names = [name for name, _ in net.layers.named_parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in net.layers.parameters()])
    grads = [torch.zeros_like(flat), torch.zeros_like(flat)]

    def views(vector: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = vector.split([p.numel() for p in net.layers.parameters()])
        shapes = [p.shape for p in net.layers.parameters()]
        return {n: x.view(shape) for n, x, shape in zip(names, parts, shapes, strict=True)}

    arrays = ArrayPass(net.spec, views(flat), views(grads[0]))
    compiled = CompiledPass(net.spec, flat.numpy(), grads[1].numpy())
    return arrays, grads[0].numpy(), compiled, grads[1].numpy()


def close(value: Array, expected: Array) -> bool:
    scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
    return (
        value.shape == expected.shape
        and float(np.abs(value - expected).max(initial=0)) <= 2e-5 * scale
    )


@given(
    sizes=st.lists(st.integers(1, 70), min_size=3, max_size=5),
    batches=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    activation=st.sampled_from(["relu", "linear"]),
    output=st.sampled_from([None, "relu", "tanh", "linear"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_all_numbers_are_those_of_numpy(
    sizes: list[int], batches: list[int], activation: str, output: str | None, seed: int
) -> None:
    inputs, *hidden, outputs = sizes
    arrays, right, compiled, mine = passes_of(inputs, outputs, hidden, activation, output)
    rng = np.random.default_rng(seed)
    for batch in batches:  # memory grows, or is more than is needed
        x, grad = rng.normal(size=(batch, inputs)), rng.normal(size=(batch, outputs))
        x, grad = x.astype(np.float32), grad.astype(np.float32)
        assert close(compiled.forward(x, keep=True), arrays.forward(x, keep=True))
        other = rng.normal(size=(int(rng.integers(60)), inputs)).astype(np.float32)
        assert close(compiled.forward(other), arrays.forward(other))  # leaves alone what was kept
        compiled.backward(grad)
        arrays.backward(grad)
        assert close(mine, right)
        columns = int(rng.integers(1, inputs + 1))
        assert close(compiled.input_gradient(grad, columns), arrays.input_gradient(grad, columns))
        assert close(mine, right)


@pytest.mark.parametrize("rows", [1, 4, 5, 6, 12, 17])
@pytest.mark.parametrize("width", [15, 16, 17, 32])
def test_nothing_is_written_beside_the_results(rows: int, width: int) -> None:
    _, _, compiled, _ = passes_of(3, width, [width], "relu", None)
    memory = np.full((rows + 2) * width, 7, np.float32)
    out = memory[width:-width].reshape(rows, width)
    compiled._pass.forward(np.ones((rows, 3), np.float32), out, True)
    assert (memory[:width] == 7).all()
    assert (memory[-width:] == 7).all()
    assert (out != 7).all()


def test_arrays_need_not_be_contiguous_nor_writable() -> None:
    arrays, right, compiled, mine = passes_of(4, 3, [20], "relu", None)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 30)).astype(np.float32)[:, 3:23:5]
    grad = rng.normal(size=(3, 8)).astype(np.float32).T
    x.flags.writeable = grad.flags.writeable = False
    assert close(compiled.forward(x, keep=True), arrays.forward(x, keep=True))
    compiled.backward(grad)
    arrays.backward(grad)
    assert close(mine, right)


@pytest.mark.parametrize("rows", [2, 20])
def test_nan_goes_through(rows: int) -> None:
    _, _, compiled, mine = passes_of(4, 3, [20, 20], "relu", None)
    x = np.zeros((rows, 4), np.float32)
    x[0, 0] = np.nan
    outputs = compiled.forward(x, keep=True)
    assert np.isnan(outputs[0]).all()
    assert np.isfinite(outputs[1:]).all()
    compiled.backward(np.full((rows, 3), np.nan, np.float32))
    assert not np.isfinite(mine).all()


def test_what_does_not_fit_is_refused() -> None:
    sizes, count = (3, 5, 2), 5 * 4 + 2 * 6
    parameters, gradients = np.zeros(count, np.float32), np.zeros(count, np.float32)
    x, out = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    for bad in (
        ((3, 5), (1, 0), parameters, gradients),  # a size is missing
        ((3, 0, 2), (1, 0), parameters, gradients),
        (sizes, (9, 0), parameters, gradients),  # no such activation
        (sizes, (2, 0), parameters, gradients),  # tanh is for the output
        (sizes, (1, 0), parameters[1:], gradients),
        (sizes, (1, 0), parameters, gradients.astype(np.float64)),
    ):
        with pytest.raises(ValueError, match=r"expected|can't be"):
            Pass(*bad)
    made = Pass(sizes, (1, 0), parameters, gradients)
    for bad in ((x[:, :2].copy(), out), (x, out[1:]), (x.astype(np.float64), out), (x, out.T)):
        with pytest.raises((ValueError, BufferError)):
            made.forward(*bad, True)
    with pytest.raises(ValueError, match="grad: expected 0 float32"):
        made.backward(out)  # no pass was kept
    made.forward(x, out, True)
    with pytest.raises(ValueError, match="grad: expected 8 float32"):
        made.backward(out[1:])
    with pytest.raises(ValueError, match="out: expected"):
        made.input_gradient(out, np.zeros((4, 4), np.float32))
    with pytest.raises(RuntimeError, match="made already"):
        made.__init__(sizes, (1, 0), parameters, gradients)
    frozen = Pass(sizes, (1, 0), parameters, None)
    frozen.forward(x, out, True)
    with pytest.raises(TypeError, match="with gradients"):
        frozen.backward(out)
    with pytest.raises(TypeError, match="that was made"):
        Pass.__new__(Pass).forward(x, out, True)


def test_it_keeps_alive_what_it_reads() -> None:
    def compiled() -> Any:
        made = passes_of(4, 3, [20], "relu", None)[2]
        made.forward(np.ones((300, 4), np.float32), keep=True)
        return made

    made = compiled()
    gc.collect()
    np.full(300 * 4, np.nan, np.float32)  # memory that was freed may be used again
    made.backward(np.ones((300, 3), np.float32))
    assert np.isfinite(made.input_gradient(np.ones((300, 3), np.float32), 4)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
@pytest.mark.parametrize("wanted", [True, False])
def test_passes_are_compiled_for_relu_in_float32(
    dtype: torch.dtype, activation: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_kernel, "compiled", wanted)
    net = TrainedNetwork(EvolvableMLP(4, 2, [8], activation, seed=0).to(dtype), lr=1e-3)
    net.infer(torch.zeros(3, 4, dtype=dtype))
    assert net._kernel is not None
    expected = wanted and activation == "relu" and dtype == torch.float32
    assert isinstance(net._kernel.passes, CompiledPass if expected else ArrayPass)


def test_without_a_compiler_numpy_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp_compiled, "AVAILABLE", False)
    net = TrainedNetwork(EvolvableMLP(4, 2, [8], seed=0), lr=1e-3)
    net.infer(torch.zeros(3, 4))
    assert net._kernel is not None
    assert isinstance(net._kernel.passes, ArrayPass)


@pytest.mark.parametrize(
    ("value", "enabled", "compiled"),
    [("0", False, True), ("numpy", True, False), ("1", True, True)],
)
def test_the_environment_variable_chooses(
    value: str, enabled: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGILERL_MLP_KERNEL", value)
    names = runpy.run_path(mlp_kernel.__file__)
    assert (names["enabled"], names["compiled"]) == (enabled, compiled)
