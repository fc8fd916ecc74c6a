"""Logging to TensorBoard: what is read back from the event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.agents import OwnAgent
from tests.runs import INF, run

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_generations_are_scalars_against_global_steps(tmp_path: Path) -> None:
    from agilerl.training.tensorboard_log import TensorBoardLogger

    pop: list[Any] = [OwnAgent(0, fitnesses=[3.0]), OwnAgent(1, fitnesses=[-INF])]
    _, _, seen = run(pop, callbacks=[TensorBoardLogger(tmp_path)])
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    best = events.Scalars("fitness/best")
    assert [event.value for event in best] == [3.0] * len(seen)
    assert [event.step for event in best] == [generation.global_steps for generation in seen]
    tags = events.Tags()["scalars"]
    assert "agent_0/fitness" in tags
    assert "agent_1/fitness" not in tags  # -inf is no scalar
