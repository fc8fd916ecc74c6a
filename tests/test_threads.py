"""Small networks run on one thread of torch and of NumPy, and what was set comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agilerl import threads


def test_the_openblas_of_numpys_wheels_is_found() -> None:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if blas != "scipy-openblas":
        pytest.skip(f"this NumPy was built with {blas}")
    assert threads.openblas() is not None


def test_one_thread_for_torch_and_numpy_and_back_again() -> None:
    blas = threads.openblas()
    before = torch.get_num_threads(), blas and blas[0]()
    torch.set_num_threads(2)
    if blas:
        blas[1](2)
    try:
        with threads.one_thread():
            assert torch.get_num_threads() == 1
            assert blas is None or blas[0]() == 1
        assert torch.get_num_threads() == 2
        assert blas is None or blas[0]() == 2
    finally:
        torch.set_num_threads(before[0])
        if blas:
            blas[1](before[1])


def test_a_numpy_without_openblas_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(np, "__file__", f"{tmp_path}/numpy/__init__.py")
    threads.openblas.cache_clear()
    try:
        assert threads.openblas() is None
        with threads.one_thread():
            assert torch.get_num_threads() == 1
    finally:
        monkeypatch.undo()
        threads.openblas.cache_clear()
