"""A first signal ends a run after the step under way; a second one ends everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from agilerl import signals
from agilerl.training.run import Generation
from agilerl.utils.utils import makeVectEnvs
from tests.agents import OwnAgent
from tests.runs import run, small_population


class Asks:
    """A callback that sends this process a signal at one generation."""

    def __init__(self, number: signal.Signals, generation: int = 0) -> None:
        self.number, self.generation = number, generation

    def __call__(self, generation: Generation) -> None:
        if generation.number == self.generation:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", signals.SIGNALS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_first_signal_ends_a_run_with_what_was_reached(number: Any, workers: int) -> None:
    before = signal.getsignal(number)
    pop, fitnesses, seen = run(
        small_population(2),
        makeVectEnvs("CartPole-v1", 2),
        n_episodes=50,
        evo_epochs=1,
        callbacks=[Asks(number, 1)],
        workers=workers,
    )
    assert len(fitnesses) == len(seen) == 2
    assert [len(agent.fitness) for agent in pop] == [2, 2]
    assert all(agent.steps[-1] == 2 * 3 * 2 for agent in pop)  # two episodes, none by halves
    assert signals.exit_code() == 128 + number
    assert signal.getsignal(number) is before


def test_the_code_is_that_of_the_last_run() -> None:
    run([OwnAgent(0)], callbacks=[Asks(signal.SIGINT)], n_episodes=9, evo_epochs=1)
    assert signals.exit_code() == 130
    run([OwnAgent(0)])
    assert signals.exit_code() == 0


def test_outside_a_run_nothing_is_asked() -> None:
    signals.check()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_run_in_another_thread_leaves_the_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    seen: list[Any] = []

    def look(generation: Generation) -> None:
        seen.append([signal.getsignal(number) for number in signals.SIGNALS])

    thread = threading.Thread(target=lambda: run([OwnAgent(0)], callbacks=[look]))
    thread.start()
    thread.join(60)
    assert seen[0] == before


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_second_signal_ends_the_process(number: signal.Signals) -> None:
    code = (
        "import signal\n"
        "from agilerl.signals import stop_at_signals\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "with stop_at_signals():\n"
        f"    signal.raise_signal({int(number)})\n"
        "    print('goes on', flush=True)\n"
        f"    signal.raise_signal({int(number)})\n"
        "    print('never', flush=True)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert found.returncode == -number
    assert found.stdout == "goes on\n"
    assert "once more stops at once" in found.stderr
