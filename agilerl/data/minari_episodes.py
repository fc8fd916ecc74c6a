"""Minari data sets as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from agilerl.errors import ConfigError, DatasetError


def read(dataset: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name, the columns and the attributes of a Minari data set.

    Args:
        dataset: a ``minari.MinariDataset``, or the id of one that is on this machine.

    Raises:
        ConfigError: if Minari is not installed.
        DatasetError: if there is no such data set, or its spaces can't be learnt on.
    """
    if isinstance(dataset, str):
        dataset = _load(dataset)
    where = f"Minari data set {dataset.spec.dataset_id}"
    observation, action = dataset.observation_space, dataset.action_space
    for name, space in (("observations", observation), ("actions", action)):
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary):
            raise DatasetError(
                f"{where}: {name}: expected Box, Discrete or MultiBinary, got {space}; flatten it"
                " when the data is made."
            )
    episodes = (e for e in dataset.iterate_episodes() if len(e.rewards))
    parts = [_rows(e, observation, action) for e in episodes]
    if not parts:
        raise DatasetError(f"{where}: rewards: expected at least one step, got none.")
    known = {
        "env_id": getattr(dataset.env_spec, "id", None),
        "minari_id": dataset.spec.dataset_id,
    }
    attributes = {key: value for key, value in known.items() if value is not None}
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return where, columns, attributes


def _rows(episode: Any, observation: Any, action: Any) -> dict[str, Any]:
    """Return the columns of one episode; its last row is an end, one way or the other."""
    states = np.asarray(episode.observations) - getattr(observation, "start", 0)
    terminals = np.array(episode.terminations, bool)
    timeouts = np.array(episode.truncations, bool)
    timeouts[-1] |= not terminals[-1]
    return {
        "observations": states[:-1],
        "actions": np.asarray(episode.actions) - getattr(action, "start", 0),
        "rewards": np.asarray(episode.rewards),
        "next_observations": states[1:],
        "terminals": terminals,
        "timeouts": timeouts,
    }


def _load(dataset_id: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise ConfigError(
            "minari: not installed; run `pip install 'agilerl[minari]'` (and `h5py`)."
        ) from error
    try:
        return minari.load_dataset(dataset_id)
    except Exception as error:
        raise DatasetError(
            f"Minari data set {dataset_id}: dataset: can't be loaded ({error}); `minari list"
            " remote` names them, `minari download` fetches one."
        ) from error
