"""The replay buffer, against a plain list and at its edges."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import ConfigError

FIELDS = ["state", "action", "reward", "next_state", "done"]


def buffer(size: int = 10, fields: Any = FIELDS, **kwargs: Any) -> ReplayBuffer:
    return ReplayBuffer(action_dim=2, memory_size=size, field_names=fields, **kwargs)


def row(i: int) -> tuple[Any, ...]:
    return np.array([i, -i], float), i % 2, float(i), np.array([i + 1, -i], float), i % 3 == 0


def rows(first: int, count: int) -> list[np.ndarray[Any, Any]]:
    made = [row(i) for i in range(first, first + count)]
    return [np.array([r[k] for r in made]).reshape(count, *np.shape(row(0)[k])) for k in range(5)]


def numbers(memory: ReplayBuffer) -> list[int]:
    """Return which transitions are in the buffer, and check that each is whole."""
    state, action, reward, successor, done = (t.numpy() for t in memory.sample(len(memory)))
    found = sorted(int(i) for i in reward[:, 0])
    for k, i in enumerate(reward[:, 0].astype(int)):
        expected = row(int(i))
        assert state[k].tolist() == expected[0].tolist()
        assert action[k].tolist() == [expected[1]]
        assert successor[k].tolist() == expected[3].tolist()
        assert done[k].tolist() == [float(expected[4])]
    return found


@given(
    size=st.integers(1, 12),
    inserts=st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_buffer_is_a_list_that_forgets_its_oldest(size: int, inserts: list[int | None]) -> None:
    memory, model, count = buffer(size), list[int](), 0
    for insert in inserts:
        number = 1 if insert is None else insert
        if insert is None:
            memory.save2memory(*row(count))
        else:
            memory.save2memoryVectEnvs(*rows(count, number))
        model = [*model, *range(count, count + number)][-size:]
        count += number
        assert memory.counter == count
        assert len(memory) == len(model)
    if model:
        assert numbers(memory) == model


def test_the_oldest_is_overwritten_first_at_the_wrap_around() -> None:
    memory = buffer(4)
    memory.save2memoryVectEnvs(*rows(0, 3))
    memory.save2memoryVectEnvs(*rows(3, 3))
    assert numbers(memory) == [2, 3, 4, 5]
    memory.save2memory(*row(6))
    assert numbers(memory) == [3, 4, 5, 6]
    assert (memory.counter, len(memory)) == (7, 4)


@given(size=st.integers(1, 30), batch=st.integers(1, 30), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_row_comes_twice_in_a_sample(size: int, batch: int, seed: int) -> None:
    memory = buffer(size, seed=seed)
    memory.save2memoryVectEnvs(*rows(0, size + 3))
    if batch > size:
        with pytest.raises(ConfigError, match="batch_size"):
            memory.sample(batch)
    else:
        drawn = memory.sample(batch)[2].ravel().tolist()
        assert len(set(drawn)) == batch


def test_every_row_is_sampled_equally_often() -> None:
    memory = buffer(10, seed=3)
    memory.save2memoryVectEnvs(*rows(0, 14))
    counts = np.bincount(
        np.concatenate([memory.sample(3)[2].numpy().ravel() for _ in range(4000)]).astype(int),
        minlength=14,
    )
    assert counts[:4].sum() == 0
    assert np.abs(counts[4:] - 1200).max() < 5 * np.sqrt(1200)


def test_sampling_more_than_there_is_is_an_error() -> None:
    memory = buffer()
    with pytest.raises(ConfigError, match="holds 0"):
        memory.sample(1)
    memory.save2memory(*row(0))
    with pytest.raises(ConfigError, match="2 transitions were asked for, the buffer holds 1"):
        memory.sample(2)
    for batch in (0, -1, 1.0, True):
        with pytest.raises(ConfigError, match="batch_size"):
            memory.sample(batch)  # type: ignore[arg-type]


def test_samples_are_tensors_in_field_order_with_columns_for_numbers() -> None:
    memory = buffer(fields=["a", "image", "b"])
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    memory.save2memory(1, image, [0.5, 2.0])
    a, stored, b = memory.sample(1)
    assert a.tolist() == [[1.0]]
    assert b.tolist() == [[0.5, 2.0]]
    assert torch.equal(stored[0], torch.from_numpy(image))
    assert [t.dtype for t in (a, stored, b)] == [torch.float32, torch.uint8, torch.float32]
    assert {t.device.type for t in (a, stored, b)} == {"cpu"}


def test_float64_is_stored_as_float32_and_integers_too() -> None:
    memory = buffer()
    memory.save2memory(np.array([0.1, 0.2]), np.int64(1), 0.3, np.array([0.1, 0.2]), np.bool_(True))
    assert all(field.dtype == torch.float32 for field in memory.sample(1))
    assert memory.sample(1)[0][0, 0] == np.float32(0.1)


@pytest.mark.parametrize("first", ["state", "next_state"])
def test_states_and_next_states_have_one_dtype(first: str) -> None:
    image, floats = np.full((2, 2), 200, np.uint8), np.full((2, 2), 0.5)
    memory = buffer(fields=["state", "next_state"])
    memory.save2memory(*((image, floats) if first == "state" else (floats, image)))
    state, successor = memory.sample(1)
    assert state.dtype == successor.dtype == torch.float32
    assert {state.max().item(), successor.max().item()} == {200.0, 0.5}


def test_images_stay_uint8_and_a_float_image_after_them_is_an_error() -> None:
    memory = buffer(fields=["state", "next_state"])
    image = np.zeros((3, 4, 4), np.uint8)
    memory.save2memory(image, image)
    assert {field.dtype for field in memory.sample(1)} == {torch.uint8}
    with pytest.raises(ConfigError, match="next_state: expected uint8"):
        memory.save2memory(image, image / 255)
    assert memory.counter == 1


def test_memory_is_contiguous_and_reserved_once() -> None:
    memory = buffer(1000)
    memory.save2memory(*row(0))
    before = [field.ctypes.data for field in memory._fields]
    memory.save2memoryVectEnvs(*rows(1, 3000))
    assert [field.ctypes.data for field in memory._fields] == before
    assert all(f.flags["C_CONTIGUOUS"] and len(f) == 1000 for f in memory._fields)


def test_what_is_stored_and_sampled_is_a_copy() -> None:
    memory, state = buffer(), np.zeros(2)
    memory.save2memory(state, 0, 0.0, state, False)
    state[:] = 9
    sample = memory.sample(1)[0]
    assert sample.tolist() == [[0.0, 0.0]]
    sample += 5
    assert memory.sample(1)[0].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_a_copy_of_a_buffer_stores_and_samples_by_itself(copied: Any) -> None:
    memory = buffer(20, seed=1)
    memory.save2memoryVectEnvs(*rows(0, 3))
    twin = copied(memory)
    for first in (3, 6, 9):
        twin.save2memoryVectEnvs(*rows(first, 3))
    assert numbers(twin) == list(range(12))
    assert numbers(memory) == [0, 1, 2]


def test_rows_of_another_kind_in_between_are_checked_as_ever() -> None:
    memory = buffer(100)
    memory.save2memoryVectEnvs(*rows(0, 3))
    memory.save2memoryVectEnvs(*rows(3, 3))
    for k, wrong in ((0, np.zeros((3, 3))), (2, np.zeros((3, 2))), (4, np.array(["a"] * 3))):
        values = rows(6, 3)
        values[k] = wrong
        with pytest.raises(ConfigError, match=FIELDS[k]):
            memory.save2memoryVectEnvs(*values)
    memory.save2memoryVectEnvs(*(value.tolist() for value in rows(6, 2)))
    memory.save2memoryVectEnvs(*rows(8, 3))
    assert numbers(memory) == list(range(11))


STATE = np.zeros(2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((STATE, 0, 1.0, STATE), r"expected 5 values \(state, action, .*got 4"),
        ((STATE, 0, 1.0, STATE, False, {}), "got 6"),
        ((np.zeros(3), 0, 1.0, STATE, False), r"state: expected shape \(1, 2\).*got \(1, 3\)"),
        ((STATE, 0, 1.0, np.zeros(1), False), "next_state: expected shape"),  # would broadcast
        ((STATE, 0, 1.0, 0.0, False), "next_state: expected shape"),
        ((STATE, [0, 1], 1.0, STATE, False), "action: expected shape"),
        ((STATE[None], 0, 1.0, STATE, False), "state: expected shape"),
        ((STATE, 0, "high", STATE, False), "reward: expected numbers"),
        ((STATE, 0, None, STATE, False), "reward: expected numbers"),
    ],
)
@pytest.mark.parametrize("stored_before", [True, False])
def test_wrong_field_count_or_shape_is_an_error_that_stores_nothing(
    values: Any, message: str, stored_before: bool
) -> None:
    memory = buffer()
    if stored_before:
        memory.save2memory(*row(0))
        with pytest.raises(ConfigError, match=message):
            memory.save2memory(*values)
    elif "expected 5" in message or "numbers" in message:
        with pytest.raises(ConfigError, match=message):
            memory.save2memory(*values)
    memory.save2memory(*row(3))
    assert numbers(memory) == ([0, 3] if stored_before else [3])


def test_rows_of_unequal_number_are_refused_and_reserve_nothing() -> None:
    memory = buffer()
    values = rows(0, 3)
    values[2] = values[2][:2]
    with pytest.raises(ConfigError, match=r"reward: expected shape \(3, 1\)"):
        memory.save2memoryVectEnvs(*values)
    wide = [np.zeros((3, 7)), *values[1:2], np.zeros(3), np.zeros((3, 7)), np.zeros(3)]
    memory.save2memoryVectEnvs(*wide)  # another shape is fine: nothing had been stored
    assert len(memory) == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"memory_size": 0}, "memory_size"),
        ({"memory_size": 10.0}, "memory_size"),
        ({"field_names": []}, "field_names"),
        ({"field_names": ["a", "a"]}, "field_names"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "gpu"}, "device"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    good = {"action_dim": 2, "memory_size": 10, "field_names": FIELDS}
    with pytest.raises(ConfigError, match=message):
        ReplayBuffer(**{**good, **kwargs})


def test_one_seed_gives_the_same_samples_and_another_seed_others() -> None:
    def draws(seed: int) -> list[float]:
        memory = buffer(50, seed=seed)
        memory.save2memoryVectEnvs(*rows(0, 50))
        return [x for _ in range(3) for x in memory.sample(10)[2].ravel().tolist()]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
