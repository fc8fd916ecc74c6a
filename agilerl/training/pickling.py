"""How tasks, agents and their states travel to a worker process and back.

Everything goes by cloudpickle, so that what a script defines (classes in ``__main__``, closures)
needs no import there.  Two kinds of objects travel in a way of their own: tensors as arrays, which
is some ten times faster than pickled storages, and vector environments that remember how they were
made, which are made anew.
"""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from agilerl.components.spaces import single_spaces
from agilerl.components.transitions import autoreset_mode
from agilerl.components.vector_env import InProcessVectorEnv, ProcessVectorEnv
from agilerl.errors import AgileRLError, EnvError

#: The dtypes of tensors that NumPy has, too.
ARRAYS = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.float32, torch.float64}
)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler for other processes on this machine."""

    def reducer_override(self, obj: Any) -> Any:
        """Return how to make ``obj`` again."""
        if type(obj) is torch.Tensor and _is_an_array(obj):
            # NumPy pickles a view as what it shows, and not with all the memory under it
            return _tensor, (obj.detach().numpy(),)
        if type(obj) in _PARTS:
            parts = _PARTS[type(obj)](obj)
            if parts is not None:
                return _make_again, (*parts, Kind.of(obj))
        return super().reducer_override(obj)


def _is_an_array(tensor: torch.Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.requires_grad
    return plain and tensor.device.type == "cpu" and tensor.dtype in ARRAYS


def _tensor(values: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(values)


def dumps(value: Any) -> bytes:
    """Return ``value`` pickled."""
    file = io.BytesIO()
    Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


loads = pickle.loads


class Packed(NamedTuple):
    """An object that was pickled before what it is sent with: it travels as bytes."""

    pickled: bytes

    def unpacked(self) -> Any:
        """Return the object."""
        return loads(self.pickled)


# ------------------------------------------------------------------------------------ environments


class Kind(NamedTuple):
    """What a copy of a vector environment must have in common with the first."""

    num_envs: int
    observation_space: Any
    action_space: Any
    autoreset_mode: str

    @classmethod
    def of(cls, env: Any) -> Kind:
        """Return the kind of a vector environment."""
        return cls(int(env.num_envs), *single_spaces(env), autoreset_mode(env).value)


def _in_process(env: InProcessVectorEnv) -> tuple[Any, ...] | None:
    makers = env.env_fns
    return None if makers is None else (InProcessVectorEnv.made_by, makers, {})


def _gymnasium(env: Any) -> tuple[Any, ...]:
    settings = {"observation_mode": env.observation_mode, "autoreset_mode": env.autoreset_mode}
    return SyncVectorEnv, list(env.env_fns), settings


#: For classes of vector environments, how one was made: class, makers, settings.  What steps in
#: processes of its own steps within the worker: the cores are taken already.
_PARTS: dict[type, Callable[[Any], tuple[Any, ...] | None]] = {
    InProcessVectorEnv: _in_process,
    SyncVectorEnv: _gymnasium,
    AsyncVectorEnv: _gymnasium,
    ProcessVectorEnv: _gymnasium,
}


def _make_again(
    make: Callable[..., Any],
    makers: Sequence[Callable[[], Any]],
    settings: dict[str, Any],
    expected: Kind,
) -> Any:
    env = make(makers, **settings)
    found = Kind.of(env)
    for name, one, other in zip(Kind._fields, expected, found, strict=True):
        if one != other:
            raise EnvError(
                f"env: its copy in a worker process has {name} {other!r}, expected {one!r}; let the"
                " functions that make it give the same environment each time."
            )
    return env


def maker_of(env: Any) -> Callable[[], Any]:
    """Return what makes a vector environment anew, as it is made now; it can be pickled.

    Raises:
        EnvError: if it can't be made again.
    """
    if type(env) is ProcessVectorEnv:
        return partial(ProcessVectorEnv, list(env.env_fns))
    if type(env) is AsyncVectorEnv:
        modes: dict[str, Any] = _gymnasium(env)[2]
        return partial(AsyncVectorEnv, list(env.env_fns), **modes)
    try:
        return partial(loads, dumps(env))
    except Exception as error:  # whatever an object may raise that can't be pickled
        raise EnvError(
            f"env_restarts: the environment can't be made anew ({type(error).__name__}: {error});"
            " make it by makeVectEnvs(...) with an id, a class or a function that makes one, or"
            " pass env_restarts=0."
        ) from error


# -------------------------------------------------------------------------------------- exceptions


class RemoteError(Exception):
    """The traceback of an exception in a worker process; it is the cause of the exception here."""

    def __str__(self) -> str:
        """Return the traceback."""
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """An exception on its way home.

    Attributes:
        pickled: the exception; None where it can't be pickled.
        summary: its class and message.
        trace: its traceback.
    """

    pickled: bytes | None
    summary: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return an exception, ready to travel."""
        trace = "".join(traceback.format_exception(error))
        summary = "".join(traceback.format_exception_only(error)).strip()
        try:
            pickled = dumps(error)
            same = type(loads(pickled)) is type(error)
        except Exception:  # an exception may refuse to be pickled, or made again, in any way
            same = False
        return cls(pickled if same else None, summary, trace)

    def error(self) -> BaseException:
        """Return the exception itself, or what stands for it; its traceback is its cause."""
        error: BaseException | None = None
        if self.pickled is not None:
            try:
                error = loads(self.pickled)
            except Exception:
                error = None
        if not isinstance(error, BaseException):
            error = AgileRLError(f"in a worker process: {self.summary}")
        error.__cause__ = RemoteError(self.trace)
        return error
