"""What every test shares: one thread, hypothesis settings, a watch over the global generators."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from typing import Any

# Read once, when NumPy and torch are loaded: small networks are slower on many threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# A property must not fail because the machine is busy, nor pass or fail by luck: no deadline, and
# the same examples in every run.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

torch.set_num_threads(1)

# A shell ignores Ctrl-C in its background jobs (`make test &`), and so would programs that tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def global_rng_states() -> dict[str, Any]:
    """Return the states of the process-wide generators, as values that ``==`` compares."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the very thing that is watched
    return {
        "random": random.getstate(),
        "numpy": (name, keys.tobytes(), *rest),
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }


def restore_global_rngs(states: dict[str, Any]) -> None:
    """Put the process-wide generators back to what ``global_rng_states`` returned."""
    name, keys, *rest = states["numpy"]
    random.setstate(states["random"])
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.random.set_rng_state(torch.frombuffer(bytearray(states["torch"]), dtype=torch.uint8))


@pytest.fixture(autouse=True)
def global_rngs_stay_untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that draws from, or seeds, the generators of ``random``, NumPy or torch.

    ``@pytest.mark.global_rng`` lets a test draw (a user's own agent may do so); the states are put
    back in any case, so that one test cannot change the next.
    """
    before = global_rng_states()
    yield
    after = global_rng_states()
    touched = [name for name in before if before[name] != after[name]]
    restore_global_rngs(before)
    if request.node.get_closest_marker("global_rng") is None:
        assert not touched, f"the test moved the global generators of: {', '.join(touched)}"
