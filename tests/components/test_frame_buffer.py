"""A replay buffer that stores each observation once, against one that stores all."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.transitions import TransitionStream
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import ConfigError
from tests.envs import CatchEnv

FIELDS = ["state", "action", "reward", "next_state", "done"]


def buffers(size: int, fields: Any = FIELDS) -> tuple[ReplayBuffer, ReplayBuffer]:
    """Return a plain buffer and one that shares observations."""
    plain = ReplayBuffer(2, size, fields, seed=5)
    return plain, ReplayBuffer(2, size, fields, seed=5, next_state_is_next_row=True)


def frames_of(memory: ReplayBuffer) -> Any:
    return memory._fields[0].frames  # type: ignore[union-attr]


def assert_alike(plain: ReplayBuffer, shared: ReplayBuffer) -> None:
    assert (len(plain), plain.counter) == (len(shared), shared.counter)
    for one, other in zip(plain.sample(len(plain)), shared.sample(len(shared)), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.numpy().tobytes() == other.numpy().tobytes()


class World:
    """Walks of several sub-environments: states count up, episodes end, few values repeat."""

    def __init__(self, envs: int, dtype: Any, rng: np.random.Generator) -> None:
        self.rng, self.dtype = rng, dtype
        self.state = self.draw(envs)

    def draw(self, count: int) -> Any:
        return self.rng.integers(3, size=(count, 2)).astype(self.dtype)

    def rows(self, envs: Any) -> list[Any]:
        """Step the sub-environments ``envs`` (numbers); some episodes end."""
        count = len(envs)
        before, after = self.state[envs], self.draw(count)
        ended = self.rng.random(count) < 0.2
        self.state[envs] = np.where(ended[:, None], self.draw(count), after)
        return [before, np.zeros(count, int), self.rng.random(count), after, ended]


@given(
    size=st.integers(1, 15),
    envs=st.integers(1, 5),
    calls=st.lists(st.sampled_from(["all", "some", "one", "bulk", "none"]), max_size=25),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=200)
def test_samples_are_those_of_a_plain_buffer(
    size: int, envs: int, calls: list[str], dtype: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    world, (plain, shared) = World(envs, dtype, rng), buffers(size)
    for call in ["all", *calls]:
        if call == "one":
            values = [value[0] for value in world.rows(np.array([0]))]
            for memory in (plain, shared):
                memory.save2memory(*values)
        else:
            chosen = np.arange(envs)
            if call == "some":
                chosen = chosen[rng.random(envs) < 0.6]
            if call == "none":
                chosen = chosen[:0]
            values = world.rows(chosen)
            if call == "bulk":  # a recorded episode: more rows in a call than there are places
                steps = [world.rows(np.array([0])) for _ in range(int(rng.integers(1, 40)))]
                values = [np.concatenate(column) for column in zip(*steps, strict=True)]
            for memory in (plain, shared):
                memory.save2memoryVectEnvs(*values)
        if plain.counter:
            assert_alike(plain, shared)
            frames = frames_of(shared)
            assert frames.frames <= 2 * size
            in_use = np.unique(frames._pairs[: len(shared)])
            assert (frames._uses > 0).sum() == len(in_use), "no frame is kept for nothing"
            assert len(np.unique(frames._spare)) == len(frames._spare)
            assert not np.isin(frames._spare, in_use).any(), "no frame is used and spare"


def test_a_negative_zero_comes_back_bit_for_bit() -> None:
    plain, shared = buffers(8)
    for state, successor in ((1.0, 0.0), (-0.0, 2.0), (2.0, 3.0)):
        for memory in (plain, shared):
            memory.save2memory(np.array([state]), 0, 0.0, np.array([successor]), False)
    assert_alike(plain, shared)
    assert frames_of(shared).frames == 5


@pytest.mark.parametrize("size", [64, 1000])
def test_images_need_half_the_memory(size: int) -> None:
    env = InProcessVectorEnv([CatchEnv() for _ in range(4)])
    plain, shared = buffers(size)
    stream = TransitionStream(env, swap_channels=True)
    stream.reset(seed=0)
    episodes = 0
    for _ in range(400):
        stream.begin(np.ones(4, int))
        step = stream.finish()
        episodes += int(step.ended.sum())
        rows = (step.state, step.action, step.reward, step.next_state, step.terminated)
        for memory in (plain, shared):
            memory.save2memoryVectEnvs(*rows)
    assert episodes > 100
    assert_alike(plain, shared)
    images = sum(field.nbytes for field in plain._fields if field.ndim == 4)
    # an episode of Catch is nine rows: its first frame is the only one stored for itself
    assert frames_of(shared).nbytes < images / 2 * (1 + 1 / 9) * 1.1 + 4 * 300


def test_a_recorded_episode_in_one_call_is_shared_along_its_rows() -> None:
    plain, shared = buffers(100)
    path = np.arange(41, dtype=np.float32)[:, None]
    rows = [path[:-1], np.zeros(40), np.zeros(40), path[1:], np.zeros(40, bool)]
    for memory in (plain, shared):
        memory.save2memoryVectEnvs(*rows)
    assert_alike(plain, shared)
    assert frames_of(shared).frames == 41


def test_copies_and_pickles_go_their_own_way() -> None:
    plain, shared = buffers(10)
    world = World(2, np.float32, np.random.default_rng(0))
    rows = [world.rows(np.arange(2)) for _ in range(9)]
    for row in rows[:4]:
        plain.save2memoryVectEnvs(*row)
        shared.save2memoryVectEnvs(*row)
    twins = [copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))]
    for row in rows[4:]:
        for memory in (plain, *twins):
            memory.save2memoryVectEnvs(*row)
    for twin in twins:
        assert_alike(copy.deepcopy(plain), twin)
    assert shared.counter == 8


def test_bad_rows_are_refused_and_store_nothing() -> None:
    _, shared = buffers(10)
    state = np.zeros(2)
    shared.save2memory(state, 0, 0.0, state, False)
    for values in (
        (np.zeros(3), 0, 0.0, state, False),
        (state, 0, 0.0, np.zeros(1), False),
        (state, 0, "high", state, False),
    ):
        with pytest.raises(ConfigError, match="expected"):
            shared.save2memory(*values)
    assert (len(shared), frames_of(shared).frames) == (1, 2)
    with pytest.raises(ConfigError, match="2 transitions were asked for, the buffer holds 1"):
        shared.sample(2)


def test_fields_without_a_successor_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"next_state_is_next_row: expected .*'next_state'"):
        ReplayBuffer(2, 10, ["state", "action"], next_state_is_next_row=True)
