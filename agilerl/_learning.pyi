from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, np.dtype[Any]]

def choose(uniforms: np.ndarray[Any, np.dtype[np.float64]], size: int, rows: Integers) -> None: ...
def take(column: Array, rows: Integers, out: Array) -> None: ...
def within(values: Array, largest: float) -> bool: ...
def q_targets(
    rewards: Floats,
    dones: Floats,
    next_q: Floats,
    chooser: Floats,
    discount: float,
    targets: Floats,
) -> None: ...
def q_loss(
    q: Floats, actions: Integers, targets: Floats, huber: bool, gradient: Floats
) -> float: ...
def adam(
    weights: Floats,
    gradient: Floats,
    mean: Floats,
    square: Floats,
    steps: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None: ...
def move(origin: Floats, to: Floats, by: float) -> None: ...
