"""Observations in units of their spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from agilerl.algorithms.arrays import to_array
from agilerl.errors import CheckpointError, check_int

#: The standard deviation of a scaled entry; one between them stays as it is.
SPREADS = 1.0, 10.0
#: So many standard deviations from zero may the mean of an entry be; beyond, it is moved.
FARTHEST_MEAN = 3.0
#: What is so many standard deviations from there is cut: what was hardly ever seen drowns no other.
FARTHEST = 10.0
#: Learn calls that count in every batch; later on it is each ``INTERVAL``-th.
EVERY_BATCH = 100
INTERVAL = 16


class ObservationScale:
    """Brings the standard deviation of each entry of an observation into [1, 10].

    It is measured in the batches learnt from.  So an angle of 0.05 is as visible to a network, and
    to Adam, as a speed of 3.  The mean is not subtracted, zero keeps its meaning; where it is more
    than three standard deviations away, what is beyond them is.  Entries that have always been the
    same become 0.

    Attributes:
        count: observations seen.
        mean: of each entry, [width], float64.
        variance: likewise.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean, self.variance = np.zeros(width), np.zeros(width)
        self._prepare()

    @property
    def width(self) -> int:
        """Number of entries."""
        return len(self.mean)

    def see(self, observations: Any, learn_count: int) -> None:
        """Count in the observations [N, width] of a learn call, if it is one of those that do."""
        if learn_count < EVERY_BATCH or learn_count % INTERVAL == 0:
            self.update(observations)

    def update(self, observations: Any) -> None:
        """Count in observations [N, width] (Chan et al. 1979)."""
        values = to_array(observations).astype(np.float64)
        total = self.count + len(values)
        share = len(values) / total
        difference = values.mean(0) - self.mean
        self.variance += share * (values.var(0) - self.variance + (1 - share) * difference**2)
        self.mean += share * difference
        self.count = total
        self._prepare()

    def __call__(self, observations: Any) -> Any:
        """Return observations [N, width], an array or a tensor, scaled, as float32."""
        if isinstance(observations, torch.Tensor):
            device = observations.device
            off, times, most = (torch.from_numpy(x).to(device) for x in self._arrays)
            return ((observations.float() - off) * times).clamp(-most, most)
        shift, factor, limit = self._arrays
        scaled = np.subtract(observations, shift, dtype=np.float32)
        scaled *= factor
        np.maximum(scaled, -limit, out=scaled)  # np.clip takes longer
        return np.minimum(scaled, limit, out=scaled)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain values."""
        moments = {name: torch.tensor(getattr(self, name)) for name in ("mean", "variance")}
        return {"count": self.count, **moments}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], width: int) -> Self:
        """Return the scale that a state describes.

        Raises:
            CheckpointError: if it is not one of ``width`` entries.
        """
        scale = cls(width)
        scale.count = check_int("observation_scale: count", state["count"], minimum=0)
        for name in ("mean", "variance"):
            values = to_array(state[name]).astype(np.float64)
            if values.shape != (width,):
                raise CheckpointError(
                    f"observation_scale: {name}: expected {width} values, got {values.shape}."
                )
            setattr(scale, name, values)
        scale._prepare()
        return scale

    def _prepare(self) -> None:
        """Compute what is taken off, what the rest is multiplied by, and where it is cut."""
        spread = np.sqrt(self.variance)
        constant = spread <= 1e-6 * np.abs(self.mean) + 1e-30
        reach = FARTHEST_MEAN * spread
        shift = self.mean - np.clip(self.mean, -reach, reach)
        scaled = np.where(constant, 1, np.clip(spread, *SPREADS))
        factor = scaled / np.where(constant, 1, spread)
        self._arrays = tuple(x.astype(np.float32) for x in (shift, factor, FARTHEST * scaled))
