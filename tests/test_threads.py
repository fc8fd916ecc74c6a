"""Small networks run on one thread of torch and of NumPy, and what was set comes back."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest
import threadpoolctl
import torch

from agilerl import threads


def blas_threads() -> list[int]:
    """Return the threads of each BLAS library, by a scan of our own."""
    info = threadpoolctl.threadpool_info()
    return [library["num_threads"] for library in info if library["user_api"] == "blas"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def test_the_blas_of_numpys_wheels_is_found() -> None:
    name = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if name != "scipy-openblas":
        pytest.skip(f"this NumPy was built with {name}")
    assert threads.blas(len(sys.modules)).info()


def test_one_thread_for_torch_and_numpy_and_back_again(two_threads: None) -> None:
    with threads.limited_threads(1):
        assert torch.get_num_threads() == 1
        assert set(blas_threads()) <= {1}
        with threads.limited_threads(1):
            pass
        assert torch.get_num_threads() == 1
        assert set(blas_threads()) <= {1}
    assert torch.get_num_threads() == 2
    assert set(blas_threads()) <= {2}


def test_what_was_set_comes_back_after_an_error(two_threads: None) -> None:
    with pytest.raises(KeyError), threads.limited_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 2
    assert set(blas_threads()) <= {2}


def test_libraries_are_looked_for_again_only_after_an_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = []

    class Counted(threadpoolctl.ThreadpoolController):
        def __init__(self) -> None:
            scans.append(1)
            super().__init__()

    threads.blas.cache_clear()
    monkeypatch.setattr(threads, "ThreadpoolController", Counted)
    for _ in range(3):
        with threads.limited_threads(1):
            pass
    assert len(scans) == 1
    monkeypatch.setitem(sys.modules, "a_new_module", types.ModuleType("a_new_module"))
    with threads.limited_threads(1):
        pass
    assert len(scans) == 2


def test_a_process_without_a_known_blas_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    none = threadpoolctl.ThreadpoolController().select(user_api="none such")
    monkeypatch.setattr(threads, "blas", lambda modules: none)
    with threads.limited_threads(1):
        assert torch.get_num_threads() == 1


def test_one_thread_is_what_loops_of_one_s_own_use(two_threads: None) -> None:
    with threads.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
