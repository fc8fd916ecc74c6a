"""The compiled passes give the numbers of those in NumPy, and refuse what does not fit."""

from __future__ import annotations

import copy
import runpy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl import compiled
from agilerl.algorithms.trained_network import TrainedNetwork
from agilerl.networks import mlp_kernel
from agilerl.networks.evolvable_mlp import EvolvableMLP
from agilerl.networks.mlp_arrays import ArrayPass
from agilerl.networks.mlp_compiled import CompiledPass

Pass: Any = getattr(compiled, "Pass", None)
needs_compiled = pytest.mark.skipif(not compiled.AVAILABLE, reason="nothing is compiled here")

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


@needs_compiled
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


@needs_compiled
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


@needs_compiled
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


@needs_compiled
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


@needs_compiled
def test_more_rows_than_are_done_at_once_and_no_hidden_layer() -> None:
    rng = np.random.default_rng(0)
    for inputs, hidden, outputs in ((7, [100, 90], 3), (130, [17], 40)):
        arrays, right, compiled, mine = passes_of(inputs, outputs, hidden, "relu", None)
        for rows in (255, 256, 257, 1500):
            x = rng.normal(size=(rows, inputs)).astype(np.float32)
            grad = rng.normal(size=(rows, outputs)).astype(np.float32)
            assert close(compiled.forward(x), arrays.forward(x, keep=True))
            compiled.forward(x, keep=True)
            compiled.backward(grad)
            arrays.backward(grad)
            assert close(mine, right)
    weights = rng.normal(size=3 * 5 + 3).astype(np.float32)
    gradients = np.zeros_like(weights)
    linear = Pass((5, 3), (0,), weights, gradients)
    x, out = rng.normal(size=(20, 5)).astype(np.float32), np.empty((20, 3), np.float32)
    linear.forward(x, out, True)
    assert close(out, x @ weights[:15].reshape(3, 5).T + weights[15:])
    linear.backward(out)
    assert close(gradients, np.concatenate([(out.T @ x).ravel(), out.sum(0)]))


@needs_compiled
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: unaligned(x),
        lambda x: np.asfortranarray(x),
    ],
    ids=["float64", "big-endian", "unaligned", "Fortran"],
)
def test_arrays_of_another_kind_are_converted(change: Any) -> None:
    _, _, compiled, mine = passes_of(4, 3, [20], "relu", None)
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(8, 4)).astype(np.float32), np.ones((8, 3), np.float32)
    outputs = compiled.forward(x, keep=True)
    compiled.backward(grad)
    expected, of_inputs = mine.copy(), compiled.input_gradient(grad, 4)
    np.testing.assert_array_equal(compiled.forward(change(x), keep=True), outputs)
    compiled.backward(change(grad))
    np.testing.assert_array_equal(mine, expected)
    np.testing.assert_array_equal(compiled.input_gradient(change(grad), 4), of_inputs)


def unaligned(x: Array) -> Array:
    """Return a copy whose values begin one byte beside where floats do."""
    raw = np.zeros(x.nbytes + 1, np.uint8)
    copied = np.frombuffer(raw.data, np.float32, x.size, offset=1).reshape(x.shape)
    copied[...] = x
    assert not copied.flags.aligned
    return copied


@needs_compiled
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (((3, 5), (1, 0)), "one more than activations"),
        (((3, 0, 2), (1, 0)), "can't be"),
        (((3, 2**60, 2), (1, 0)), "can't be"),
        (((3, 5, 2), (9, 0)), "can't be"),
        (((3, 5, 2), (2, 0)), "can't be"),  # tanh is for the output
        (((3, 5, 3), (1, 0)), "parameters: expected 38 numbers"),
    ],
)
def test_networks_that_cannot_be_are_refused(bad: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Pass(*bad, np.zeros(32, np.float32), None)
    with pytest.raises(ValueError, match="gradients: expected 32 numbers"):
        Pass((3, 5, 2), (1, 0), np.zeros(32, np.float32), np.zeros(31, np.float32))


@needs_compiled
def test_what_does_not_fit_is_refused_and_let_go() -> None:
    made = Pass((3, 5, 2), (1, 0), np.zeros(32, np.float32), np.zeros(32, np.float32))
    x, out = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="no pass was kept"):
        made.backward(out)
    with pytest.raises(ValueError, match="no pass was kept"):
        made.input_gradient(out, x)
    made.forward(x, out, True)
    wrong = np.zeros((2, 4), np.float32)  # as many values as ``out``
    flat = np.zeros(12, np.float32)
    counts = references(x, out, wrong, flat)
    for arguments in ((wrong, out), (x, wrong), (flat, out), (x.astype(np.float64), out)):
        with pytest.raises(ValueError, match="expected"):
            made.forward(*arguments, False)
    with pytest.raises(ValueError, match="not C-contiguous"):
        made.forward(x, wrong.T, False)
    for gradient in (wrong, flat):
        with pytest.raises(ValueError, match="grad: expected"):
            made.backward(gradient)
    for rows in (np.zeros((4, 4), np.float32), np.zeros((3, 3), np.float32)):
        with pytest.raises(ValueError, match="out: expected"):
            made.input_gradient(out, rows)
    made.forward(x, out, False)
    made.backward(out)
    del arguments, gradient
    assert references(x, out, wrong, flat) == counts
    with pytest.raises(RuntimeError, match="made already"):
        made.__init__((3, 5, 2), (1, 0), np.zeros(32, np.float32), None)
    with pytest.raises(TypeError, match="pickle"):
        copy.deepcopy(made)
    frozen = Pass((3, 5, 2), (1, 0), np.zeros(32, np.float32), None)
    frozen.forward(x, out, True)
    with pytest.raises(TypeError, match="with gradients"):
        frozen.backward(out)
    with pytest.raises(TypeError, match="that was made"):
        Pass.__new__(Pass).forward(x, out, True)


@needs_compiled
def test_a_pass_holds_its_vectors_and_the_inputs_that_it_kept() -> None:
    parameters, gradients = np.zeros(32, np.float32), np.zeros(32, np.float32)
    x, out = np.ones((4, 3), np.float32), np.empty((4, 2), np.float32)
    arrays = (parameters, gradients, x, out)
    counts = references(*arrays)
    made = Pass((3, 5, 2), (1, 0), parameters, gradients)
    made.forward(x, out, True)
    assert references(*arrays) == [counts[0] + 1, counts[1] + 1, counts[2] + 1, counts[3]]
    made.forward(x.copy(), out, True)
    assert references(*arrays) == [counts[0] + 1, counts[1] + 1, counts[2], counts[3]]
    del made
    assert references(*arrays) == counts


def references(*arrays: Array) -> list[int]:
    """Return how many references there are to each array."""
    return [sys.getrefcount(array) for array in arrays]


@needs_compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
@pytest.mark.parametrize("wanted", [True, False])
def test_passes_are_compiled_for_relu_in_float32(
    dtype: torch.dtype, activation: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "enabled", wanted)
    net = TrainedNetwork(EvolvableMLP(4, 2, [8], activation, seed=0).to(dtype), lr=1e-3)
    net.infer(torch.zeros(3, 4, dtype=dtype))
    assert net._kernel is not None
    expected = wanted and activation == "relu" and dtype == torch.float32
    assert isinstance(net._kernel.passes, CompiledPass if expected else ArrayPass)


def test_without_a_compiler_numpy_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "AVAILABLE", False)
    net = TrainedNetwork(EvolvableMLP(4, 2, [8], seed=0), lr=1e-3)
    net.infer(torch.zeros(3, 4))
    assert net._kernel is not None
    assert isinstance(net._kernel.passes, ArrayPass)


@pytest.mark.parametrize(
    ("value", "kernel", "in_c"),
    [("0", False, True), ("numpy", True, False), ("1", True, True)],
)
def test_the_environment_variable_chooses(
    value: str, kernel: bool, in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGILERL_MLP_KERNEL", value)
    assert runpy.run_path(mlp_kernel.__file__)["enabled"] == kernel
    assert runpy.run_path(compiled.__file__)["enabled"] == in_c
