"""Transitions to learn from without acting."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from gymnasium import spaces

from agilerl.components.spaces import single_spaces
from agilerl.data import hdf5, minari_episodes
from agilerl.data.columns import (
    FLAGS,
    Report,
    Source,
    check_actions,
    check_observation_shape,
    check_state_numbers,
    find_names,
    read,
)
from agilerl.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger("agilerl")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class OfflineDataset:
    """Transitions as contiguous arrays, one row each; every row is a true transition.

    Images are as the environment gives them ([H, W, C], say); ``fill`` turns them.  Discrete
    states and actions count from 0.

    Attributes:
        observations: [N, ...] float32; uint8 images stay uint8, numbers of states are int64.
        actions: [N] int64, or [N, action_dim] float32.
        rewards: [N] float32.
        next_observations: as ``observations``; where an episode terminated and the source did not
            give one, the observation itself (it counts for nothing there).
        terminated: [N] bool, the episode ended by itself; a time limit does not count.
        ended: [N] bool, the last row of an episode, for whatever reason.
        report: what was kept and dropped, and why.
        attributes: what is known about the data: environment, policy, seed, versions.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    terminated: Array
    ended: Array
    report: Report
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.rewards)

    @classmethod
    def from_hdf5(
        cls,
        source: str | os.PathLike[str] | h5py.Group,
        env: Any = None,
        max_episode_steps: int | None = None,
        max_bytes: int = hdf5.MAX_BYTES,
    ) -> Self:
        """Read a file, in large pieces, or one that is already open.

        Args:
            source: path, or ``h5py.File`` (it stays open).
            env: check shapes and actions against this environment.
            max_episode_steps: time limit of the episodes in a file that marks no time limits; by
                default that of ``env``.
            max_bytes: refuse a file that would take more memory.

        Raises:
            DatasetError: that names the file and the field.
        """
        with hdf5.open_group(source, "agilerl.data.collect") as (where, group):
            names = find_names(where, hdf5.field_names(group))
            columns = {
                name: hdf5.checked_field(where, group, actual, may_be_unwritten=name in FLAGS)
                for name, actual in names.items()
            }
            found = Source(where, columns, names, hdf5.attributes(where, group))
            return cls(**read(found, env, max_episode_steps, max_bytes))

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        env: Any = None,
        max_episode_steps: int | None = None,
        where: str = "dict",
        attributes: Mapping[str, Any] | None = None,
    ) -> Self:
        """Take arrays under the names that an HDF5 file would have; see ``from_hdf5``.

        Args:
            data: arrays by name.
            env: check shapes and actions against this environment.
            max_episode_steps: time limit, where no column marks time limits.
            where: what messages call the data.
            attributes: what is known about it.

        Raises:
            DatasetError: that names ``where`` and the field.
        """
        names = find_names(where, data)
        columns = {name: _as_array(where, actual, data[actual]) for name, actual in names.items()}
        source = Source(where, columns, names, attributes or {})
        return cls(**read(source, env, max_episode_steps, max_bytes=None))

    @classmethod
    def from_minari(cls, dataset: Any, env: Any = None) -> Self:
        """Take a Minari data set (``pip install 'agilerl[minari]'``), or load one by its id.

        Every row is kept: Minari stores the observation after the last step too.

        Raises:
            ConfigError: if Minari is not installed.
            DatasetError: if the data set can't be read, or its spaces can't be learnt on.
        """
        where, data, attributes = minari_episodes.read(dataset)
        return cls.from_dict(data, env, where=where, attributes=attributes)

    @classmethod
    def from_replay_buffer(cls, memory: Any, attributes: Mapping[str, Any] | None = None) -> Self:
        """Take what a ``ReplayBuffer`` recorded, oldest first.

        Its rows may come from several environments in turn, so that returns are not known.

        Raises:
            DatasetError: if it is empty, or has other fields than state, action, reward, next
                state and done.
        """
        where = "replay buffer"
        if not len(memory):
            raise DatasetError(f"{where}: state: it is empty; record transitions first.")
        oldest = memory.counter % memory.memory_size if memory.counter > len(memory) else 0
        data = {}
        for name, rows in zip(memory.field_names, memory._fields, strict=True):
            ordered = np.roll(rows[: len(memory)], -oldest, axis=0)
            one_number = ordered.ndim == 2 and ordered.shape[1] == 1
            data[name] = ordered[:, 0] if one_number else ordered
        if data.get("action") is not None and data["action"].ndim == 1:
            data["action"] = _discrete(data["action"], memory.action_dim)
        return cls.from_dict(data, where=where, attributes=attributes)

    # ------------------------------------------------------------------------------------- to use

    @property
    def policy_mean_return(self) -> float | None:
        """Mean return of the policy that acted, measured when the data was collected."""
        value = self.attributes.get("policy_mean_return")
        return float(value) if isinstance(value, int | float) else None

    def check(self, env: Any, swap_channels: bool = False) -> None:
        """Raise ``DatasetError`` unless the data is of an environment with these spaces."""
        states = {n: getattr(self, n) for n in ("observations", "next_observations")}
        source = Source(self.report.where, states)
        observation, action = single_spaces(env)
        check_observation_shape(source, observation, swap_channels)
        for name, rows in states.items():
            check_state_numbers(source, name, rows, observation)
        check_actions(source, self.actions, action)

    def fill(
        self, memory: Any, env: Any = None, swap_channels: bool = False, all_rows: bool = False
    ) -> int:
        """Store the transitions in a replay buffer with one call, and return how many.

        More rows than the buffer holds are thinned out evenly, with a warning that counts them.

        Args:
            memory: a ``ReplayBuffer`` with the fields state, action, reward, next state, done.
            env: the environment; needed with ``swap_channels``, to tell images that are turned.
            swap_channels: turn images from [H, W, C] to [C, H, W].
            all_rows: enlarge the buffer, which must be empty, to hold them all.

        Raises:
            ConfigError: if ``all_rows`` is asked for and the buffer is not empty.
        """
        rows = self._rows_for(memory, all_rows)
        states, next_states = self.observations, self.next_observations
        if swap_channels and states.shape[1:] == single_spaces(env)[0].shape:
            states, next_states = np.moveaxis(states, -1, 1), np.moveaxis(next_states, -1, 1)
        actions = self.actions
        if env is not None and isinstance(single_spaces(env)[1], spaces.Box):
            actions = actions.reshape(len(self), -1)
        fields = (states, actions, self.rewards, next_states, self.terminated)
        count = len(self) if rows is None else len(rows)
        over = len(memory) + count - getattr(memory, "memory_size", len(memory) + count)
        if over > 0:
            logger.warning(
                "%s: %s of the %s transitions that the replay buffer held are overwritten; enlarge"
                " memory_size to keep them",
                self.report.where,
                f"{over:,}",
                f"{len(memory):,}",
            )
        memory.save2memoryVectEnvs(*(f if rows is None else f[rows] for f in fields))
        return count

    def _rows_for(self, memory: Any, all_rows: bool) -> Array | None:
        """Return the rows that go into ``memory``; None is all of them."""
        size = getattr(memory, "memory_size", len(self))
        if len(self) <= size:
            return None
        if all_rows:
            if len(memory):
                raise ConfigError(
                    f"all_rows: the replay buffer already holds {len(memory)} transitions, and only"
                    " an empty one can be enlarged; pass a new ReplayBuffer."
                )
            memory.memory_size = len(self)
            return None
        logger.warning(
            "%s: %s of %s transitions left out, the replay buffer holds %s; pass all_rows=True (or"
            " a larger memory_size) to take them all",
            self.report.where,
            f"{len(self) - size:,}",
            f"{len(self):,}",
            f"{size:,}",
        )
        return np.linspace(0, len(self) - 1, size).astype(np.int64)

    def save(self, path: str | os.PathLike[str], **attributes: Any) -> None:
        """Write the transitions as HDF5, whole or not at all; ``from_hdf5`` reads them back.

        Args:
            path: of the file; its folder is made.
            attributes: added to those that the data set has.
        """
        arrays = {
            "observations": self.observations,
            "actions": self.actions,
            "rewards": self.rewards,
            "next_observations": self.next_observations,
            "terminals": self.terminated,
            "timeouts": self.ended & ~self.terminated,
        }
        hdf5.write(path, arrays, {**self.attributes, **attributes})


def load(dataset: Any, env: Any = None, swap_channels: bool = False) -> OfflineDataset:
    """Return whatever ``train()`` may be given as an ``OfflineDataset``, checked against ``env``.

    Args:
        dataset: an ``OfflineDataset``, a path, an ``h5py.File``, a dict of arrays, a Minari data
            set or a ``ReplayBuffer``.
        env: the environment.
        swap_channels: images come as [H, W, C].

    Raises:
        DatasetError: if it can't be used.
    """
    h5py = sys.modules.get("h5py")
    if isinstance(dataset, OfflineDataset):
        loaded = dataset
    elif isinstance(dataset, str | os.PathLike) or (h5py and isinstance(dataset, h5py.Group)):
        loaded = OfflineDataset.from_hdf5(dataset, env)
    elif isinstance(dataset, Mapping):
        loaded = OfflineDataset.from_dict(dataset, env)
    elif hasattr(dataset, "iterate_episodes"):
        loaded = OfflineDataset.from_minari(dataset, env)
    elif hasattr(dataset, "save2memoryVectEnvs"):
        loaded = OfflineDataset.from_replay_buffer(dataset)
    else:
        raise DatasetError(
            "dataset: expected an h5py.File, a path, an OfflineDataset, a dict of arrays, a Minari"
            f" data set or a ReplayBuffer, got {type(dataset).__name__}."
        )
    if env is not None:
        loaded.check(env, swap_channels)
    return loaded


def _as_array(where: str, name: str, values: Any) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DatasetError(f"{where}: {name}: expected rows of equal shape ({error}).") from error


def _discrete(actions: Array, action_dim: int) -> Array:
    """Return recorded actions as whole numbers, if that is what they are."""
    whole = action_dim > 1 and bool((actions == np.floor(actions)).all())
    return actions.astype(np.int64) if whole else actions
