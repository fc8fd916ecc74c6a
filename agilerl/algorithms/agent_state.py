"""An agent as tensors and plain values, and back."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import torch

from agilerl import checkpoint
from agilerl.devices import check_device
from agilerl.errors import CheckpointError
from agilerl.lineage import Ancestor

#: What entries of the wrong kind may raise; sizes that no memory holds are among them.
MALFORMED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)

#: The attributes that change while an agent lives, beside its settings and networks.
HISTORY = ("index", "parent", "mut", "scores", "fitness", "steps", "learn_count")


def stream_state(rng: np.random.Generator) -> str:
    """Return the state of a random stream as text."""
    return json.dumps(rng.bit_generator.state)


def stream_from(state: str) -> np.random.Generator:
    """Return the random stream that ``stream_state`` described."""
    rng = np.random.default_rng(0)
    rng.bit_generator.state = json.loads(state)
    return rng


def drawers(agent: Any) -> list[Any]:
    """Return whatever draws in ``agent``: itself and its networks; each has a stream ``rng``."""
    owned = agent.networks.values()
    return [agent, *(network for trained in owned for network in trained.evolvables)]


def agent_state(agent: Any) -> dict[str, Any]:
    """Return everything that makes up ``agent``, but for the device it lives on."""
    return {
        "algo": agent.algo,
        "settings": agent.settings(),
        "networks": {name: network.state() for name, network in agent.networks.items()},
        "history": {name: getattr(agent, name) for name in HISTORY},
        "lineage": [ancestor.as_dict() for ancestor in agent.lineage],
        "streams": [stream_state(drawer.rng) for drawer in drawers(agent)],
    }


def load_agent(cls: Any, path: str | os.PathLike[str], device: str | torch.device) -> Any:
    """Return the agent of class ``cls`` that the checkpoint at ``path`` describes.

    Raises:
        ConfigError: if there is no such device.
        CheckpointError: if the file can't be read, is of another algorithm, or is inconsistent.
    """
    device = check_device(device)
    payload = checkpoint.load(path)
    if payload.get("algo") != cls.algo:
        raise CheckpointError(
            f"{path}: a checkpoint of {payload.get('algo')!r}, expected {cls.algo!r}; load it with"
            " that algorithm's class."
        )
    try:
        agent = cls(**payload["settings"], device=device)
        for name, network in agent.networks.items():
            network.load_state(payload["networks"][name])
        history = {name: payload["history"][name] for name in HISTORY}
        lineage = tuple(Ancestor(**record) for record in payload["lineage"])
        for drawer, stream in zip(drawers(agent), payload["streams"], strict=True):
            drawer.rng = stream_from(stream)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except MALFORMED as error:
        raise CheckpointError(f"{path}: incomplete or inconsistent ({error!r}).") from error
    for name, value in history.items():
        setattr(agent, name, value)
    agent.lineage = lineage
    return agent
