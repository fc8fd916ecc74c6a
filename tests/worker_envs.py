"""Environments for worker processes; this module loads no torch, so that they start fast."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.envs import PayEnv


class TalkingEnv(PayEnv):
    """Infos of every kind, on some steps only."""

    def __init__(self, identity: int) -> None:
        super().__init__(length=3 + identity)
        self.identity = identity

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, {"options": str(options), "seed": seed} if self.identity else {}

    def step(self, action: Any) -> Any:
        observation, reward, over, cut, _ = super().step(action)
        info: dict[str, Any] = {}
        if (self.time + self.identity) % 2:
            info = {"n": self.time, "x": np.float32(0.5), "v": np.arange(2), "d": {"s": "deep"}}
        return observation, reward, over, cut, info


class TroubledEnv(PayEnv):
    """Does what its action says: 1 raises, 2 ends the process, 3 works for long."""

    def __init__(self) -> None:
        super().__init__(length=5)

    def step(self, action: Any) -> Any:
        if action == 1:
            raise RuntimeError("the rocket has no fuel")
        if action == 2:
            os._exit(7)
        if action == 3:
            time.sleep(60)
        return super().step(action)


class NosyEnv(PayEnv):
    """Says what its process is and has loaded."""

    def __init__(self) -> None:
        super().__init__(length=9)

    def step(self, action: Any) -> Any:
        info = {"pid": os.getpid(), "torch": "torch" in sys.modules}
        return *super().step(action)[:4], info


class ClosingEnv(PayEnv):
    """Writes down in which process it was closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def close(self) -> None:
        self.path.write_text(str(os.getpid()))


def unmade() -> Any:
    raise FileNotFoundError("no such track")
