"""Views of a replay buffer that are put back, the merge of several agents' rows, and its state."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agilerl.components.replay_buffer import ReplayBuffer, Rows
from agilerl.errors import CheckpointError

FIELDS = ["state", "action", "reward", "next_state", "done"]

kinds = st.sampled_from(["vectors", "images", "shared frames"])
sizes = st.integers(1, 40)
calls = st.lists(st.integers(1, 9), max_size=12)


def buffer(kind: str, size: int, **settings: Any) -> ReplayBuffer:
    pairs = kind == "shared frames"
    return ReplayBuffer(1, size, FIELDS, seed=1, next_state_is_next_row=pairs, **settings)


class Walk:
    """Transitions whose numbers tell when they came; a state is the next state before it."""

    def __init__(self, kind: str, start: int = 0) -> None:
        self.kind, self.number = kind, start

    def observation(self, numbers: Any) -> Any:
        if self.kind == "vectors":
            return np.stack([numbers, -numbers], 1).astype(np.float32)
        return np.broadcast_to(numbers[:, None, None] % 251, (len(numbers), 2, 3)).astype(np.uint8)

    def __call__(self, count: int) -> list[Any]:
        numbers = self.number + np.arange(count)
        self.number += count
        after = self.observation(numbers + count)
        return [self.observation(numbers), numbers, numbers / 2.0, after, numbers % 3 == 0]


def content(memory: ReplayBuffer) -> list[Any]:
    """Return every row by its position in the ring, and the counter."""
    return [memory.counter, *(column[: len(memory)].tolist() for column in memory._fields)]


@given(kind=kinds, size=sizes, before=calls, within=calls)
def test_in_a_view_the_buffer_is_any_ring_and_afterwards_as_it_was(
    kind: str, size: int, before: list[int], within: list[int]
) -> None:
    memory, other, walk = buffer(kind, size), buffer(kind, size), Walk(kind)
    for count in before:
        values = walk(count)
        memory.save2memoryVectEnvs(*values)
        other.save2memoryVectEnvs(*values)
    untouched = content(memory)
    with memory.view() as rows:
        for count in within:
            values = walk(count)
            memory.save2memoryVectEnvs(*values)
            other.save2memoryVectEnvs(*values)
        assert content(memory) == content(other)
    assert content(memory) == untouched
    assert rows.written == sum(within)
    kept = min(sum(within), size)
    assert [values.tolist() for values in rows.fields] == [
        values.tolist() for values in other.rows(other.counter - kept, other.counter)
    ][: len(rows.fields)]
    after = walk(3)  # and it goes on as if nothing had been
    memory.save2memoryVectEnvs(*after)
    fresh = buffer(kind, size)
    again = Walk(kind)
    for count in before:
        fresh.save2memoryVectEnvs(*again(count))
    fresh.save2memoryVectEnvs(*after)
    assert content(memory) == content(fresh)


def test_a_view_that_ends_in_an_error_is_put_back() -> None:
    memory, walk = buffer("vectors", 5), Walk("vectors")
    memory.save2memoryVectEnvs(*walk(4))
    before = content(memory)
    with contextlib.suppress(OSError), memory.view():
        memory.save2memoryVectEnvs(*walk(4))
        raise OSError("gone")
    assert content(memory) == before


@given(
    kind=kinds,
    size=sizes,
    before=st.integers(0, 50),
    counts=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=4),
)
@settings(max_examples=60)
def test_rows_are_merged_by_step_then_agent_then_sub_environment(
    kind: str, size: int, before: int, counts: list[list[int]]
) -> None:
    memory, expected = buffer(kind, size), buffer(kind, size)
    if before:
        for ring in (memory, expected):
            ring.save2memoryVectEnvs(*Walk(kind)(before))
    parts: list[Rows] = []
    collected: list[list[list[Any]]] = []
    for slot, steps in enumerate(counts):
        walk = Walk(kind, 1000 * (slot + 1))
        collected.append([walk(count) for count in steps])
        with memory.view() as rows:
            for values in collected[-1]:
                if len(values[0]):
                    memory.save2memoryVectEnvs(*values)
        parts.append(rows)
    memory.merge(parts, [np.array(steps) for steps in counts])
    for step in range(6):
        of_step = [own[step] for own in collected]
        values = [np.concatenate(columns) for columns in zip(*of_step, strict=True)]
        if len(values[0]):
            expected.save2memoryVectEnvs(*values)
    assert content(memory) == content(expected)


@given(kind=kinds, size=sizes, inserted=calls)
def test_a_buffer_comes_back_row_for_row_and_draws_on_where_it_was(
    kind: str, size: int, inserted: list[int]
) -> None:
    memory, walk = buffer(kind, size), Walk(kind)
    for count in inserted:
        memory.save2memoryVectEnvs(*walk(count))
    if len(memory):
        memory.sample(1)
    other = buffer(kind, size)
    other.save2memoryVectEnvs(*Walk(kind, 7)(3))
    other.load_state_dict(copy.deepcopy(memory.state_dict()))
    assert content(other) == content(memory)
    more = walk(2)
    for ring in (memory, other):
        ring.save2memoryVectEnvs(*more)
    for one, two in zip(memory.sample(1), other.sample(1), strict=True):
        assert one.tolist() == two.tolist()
    assert content(other) == content(memory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_size": 6}, "memory_size is 6, that of the saved buffer was 5"),
        ({"field_names": FIELDS[:4]}, "field_names"),
    ],
)
def test_the_state_of_another_buffer_is_refused(changes: dict[str, Any], message: str) -> None:
    memory = ReplayBuffer(1, 5, FIELDS)
    other = ReplayBuffer(**{**memory.settings, **changes})
    with pytest.raises(CheckpointError, match=message):
        other.load_state_dict(memory.state_dict())


def test_rows_that_are_missing_are_noticed() -> None:
    memory = buffer("vectors", 5)
    memory.save2memoryVectEnvs(*Walk("vectors")(4))
    state = memory.state_dict()
    state["rows"] = [values[1:] for values in state["rows"]]
    with pytest.raises(CheckpointError, match="expected 4 rows, got 3"):
        buffer("vectors", 5).load_state_dict(state)


def test_frames_stay_shared_in_a_view_and_after_a_merge() -> None:
    memory = buffer("shared frames", 1000)
    for _ in range(3):
        parts = []
        for slot in range(3):
            with memory.view() as rows:
                walk = Walk("shared frames", 100 * slot)
                for _ in range(20):
                    memory.save2memoryVectEnvs(*walk(2))
            parts.append(rows)
        memory.merge(parts, [np.full(20, 2)] * 3)
    assert len(memory) == 360
    frames = memory._fields[0].frames  # type: ignore[union-attr]
    assert frames.frames < 1.2 * 360
