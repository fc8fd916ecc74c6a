"""Small observations, made as large as others are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from agilerl.algorithms.arrays import to_array
from agilerl.errors import CheckpointError

#: No entry is multiplied by more: what is as small as that may be noise.
LARGEST_FACTOR = 100.0


class ObservationScale:
    """Divides the entries of an observation that stay below 1 by the largest magnitude seen.

    An angle that ends an episode at 0.2 is hardly visible to a network, and to Adam, beside a speed
    of 3; divided by 0.2 it is.  Entries that reach 1 stay as they are: those of large units are the
    user's to divide.

    Attributes:
        largest: magnitude of each entry in the batches learnt from, 1 at most, [width], float32.
    """

    def __init__(self, width: int) -> None:
        self.largest = np.zeros(width, np.float32)
        self._prepare()

    def see(self, observations: Any) -> None:
        """Take into account a batch of observations [N, width], an array or a tensor."""
        if self.settled:
            return
        magnitudes = np.abs(to_array(observations))
        if (magnitudes > self._known).any():
            seen = np.minimum(magnitudes.max(0, initial=0), 1)
            self.largest = np.fmax(self.largest, seen).astype(np.float32)
            self._prepare()

    def __call__(self, observations: Any) -> Any:
        """Return observations [N, width], an array or a tensor of float32, with entries scaled."""
        if self.identity:
            return observations
        if isinstance(observations, torch.Tensor):
            return observations * torch.from_numpy(self._factor).to(observations.device)
        return observations * self._factor

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain values."""
        return {"largest": torch.tensor(self.largest)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], width: int) -> Self:
        """Return the scale that a state describes.

        Raises:
            CheckpointError: if it is not one of ``width`` entries.
        """
        scale = cls(width)
        largest = to_array(state["largest"]).astype(np.float32)
        if largest.shape != (width,):
            raise CheckpointError(
                f"observation_scale: largest: expected {width} values, got {largest.shape};"
                " load the state of an agent whose observations are as wide."
            )
        scale.largest = largest
        scale._prepare()
        return scale

    def _prepare(self) -> None:
        small = (self.largest > 0) & (self.largest < 1)
        divisor = np.where(small, np.maximum(self.largest, 1 / LARGEST_FACTOR), 1)
        self._factor = (1 / divisor).astype(np.float32)
        self.identity = not small.any()
        self.settled = not (self.largest < 1).any()
        #: what is no news: anything of an entry that has reached 1
        self._known = np.where(self.largest < 1, self.largest, np.inf).astype(np.float32)
